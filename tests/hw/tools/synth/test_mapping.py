"""Modules mapped one by one: they add up to the unit mapped at once, and are kept."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.hw.tools.synth.toy import LIBERTY
from vrex.errors import UserError
from vrex.hw.tools.generate import netlist
from vrex.hw.tools.synth import mapping, memories, tools
from vrex.hw.tools.synth.mapping import CellLibrary, MappedModule, Mapper, split
from vrex.model.config import preset

DESIGN = """
module leaf(clk, i, o);
  input clk;
  wire clk;
  input [3:0] i;
  wire [3:0] i;
  output o;
  wire o;
  assign o = ^i;
endmodule

module \\pair$1 (clk, i, o);
  input clk;
  wire clk;
  input [3:0] i;
  wire [3:0] i;
  output [1:0] o;
  wire [1:0] o;
  leaf a (
    .clk(clk),
    .i(i),
    .o(o[0])
  );
  leaf \\b$2  (
    .clk(clk),
    .i(~i),
    .o(o[1])
  );
endmodule

module other(clk);
  input clk;
  wire clk;
endmodule

module top(clk, i, o);
  input clk;
  wire clk;
  input [3:0] i;
  wire [3:0] i;
  output [1:0] o;
  reg [1:0] o;
  wire [1:0] now;
  \\pair$1  both (
    .clk(clk),
    .i(i),
    .o(now)
  );
  always @(posedge clk)
    o <= now;
endmodule
"""


def rtlil(verilog: str, folder: Path) -> str:
    """A design as `vrex.hw.tools.generate.netlist` gives it."""
    (folder / "design.v").write_text(verilog)
    steps = ("proc", "opt_clean", "memory_collect", "rename -enumerate", "setattr -unset src * */*")
    tools.yosys("\n".join(["read_verilog design.v", *steps, "write_rtlil design.il", ""]), folder)
    return (folder / "design.il").read_text()


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`DESIGN` as RTLIL."""
    return rtlil(DESIGN, tmp_path_factory.mktemp("design"))


@pytest.fixture
def library(tmp_path: Path) -> CellLibrary:
    path = tmp_path / "toy.lib"
    path.write_text(LIBERTY)
    return CellLibrary.load(path)


def _map(
    text: str, top: str, library: CellLibrary | None, folder: Path
) -> tuple[dict[str, MappedModule], list[str]]:
    """The modules, and which were mapped now."""
    told: list[str] = []
    (folder / "work").mkdir(exist_ok=True)
    mapper = Mapper(library, folder / "cache")
    return mapper.map(text, top, folder / "work", told.append), [line.split()[1] for line in told]


def test_split_gives_each_module_with_the_ports_of_those_in_it(design: str) -> None:
    found = split(design, "top")
    assert list(found) == ["top", "pair$1", "leaf"]
    assert found["leaf"].count("\nend") == 1
    stub = found["top"].split("\nend\n")[1].splitlines()
    assert stub[:2] == ["attribute \\blackbox 1", "module \\pair$1"]
    assert sorted(stub[2:]) == [
        "  wire input 1 \\clk",
        "  wire width 2 output 3 \\o",
        "  wire width 4 input 2 \\i",
    ]
    assert "\\leaf" not in found["top"]
    assert found["pair$1"].count("module \\leaf") == 1
    assert "$reduce_xor" not in found["pair$1"]


def test_a_signed_port_is_a_port_of_the_stub() -> None:
    inner = "module \\inner\n  wire width 5 output 1 signed \\o\n  wire width 5 signed \\own\nend\n"
    found = split(f"module \\top\n  cell \\inner \\it\n    connect \\o 5'0\n  end\nend\n{inner}", "top")
    assert found["top"].endswith("module \\inner\n  wire width 5 output 1 signed \\o\nend\n")


def test_instances_and_memories_are_found(design: str, library: CellLibrary, tmp_path: Path) -> None:
    found, _ = _map(design, "top", library, tmp_path)
    assert found["top"].children == {"both": "pair$1"}
    assert found["top"].cells == {"DFF": 2}
    assert found["pair$1"].children == {"a": "leaf", "b$2": "leaf"}
    assert set(found["leaf"].cells) <= {"INV", "NAND"}
    assert found["leaf"].ports["i"]["direction"] == "input"


def _whole(text: str, top: str, library: CellLibrary | None, folder: Path) -> dict[str, Counter[str]]:
    """Cells of each module where one Yosys maps all of them."""
    (folder / "unit.il").write_text(text)
    script = f"read_rtlil unit.il\n{mapping.COARSE.format(top=top)}; "
    # The HCU has no table; what is read at once becomes registers.
    script += "write_json coarse.json; "
    tools.yosys(script.replace("; ", "\n"), folder)
    modules = json.loads((folder / "coarse.json").read_text())["modules"]
    mapped = [
        f"memory_map {name}/{memory['cell']}"
        for name, module in modules.items()
        for memory in memories.of_module(module)
        if memory["kind"] != "macro"
    ]
    script += "\n".join([*mapped, mapping.FINE, mapping.GATES if library is None else mapping.MAP, ""])
    if library is not None:
        (folder / "cells.lib").write_text(LIBERTY)
        (folder / "map.abc").write_text("\n".join(mapping.ABC) + "\n")
    tools.yosys(f"{script}\nwrite_json cells.json\n".replace("; ", "\n"), folder)
    modules = json.loads((folder / "cells.json").read_text())["modules"]
    return {
        name: Counter(
            cell["type"]
            for cell in module["cells"].values()
            if cell["type"] != memories.MEMORY and cell["type"] not in modules
        )
        for name, module in modules.items()
    }


@pytest.mark.parametrize("gates", [True, False])
def test_modules_add_up_to_the_unit_mapped_at_once(gates: bool, library: CellLibrary, tmp_path: Path) -> None:
    text = netlist("hcu", preset("tiny"))
    one_by_one, _ = _map(text, "vrex_hcu", None if gates else library, tmp_path)
    assert len(one_by_one) == 3
    whole = _whole(text, "vrex_hcu", None if gates else library, tmp_path)
    for name, module in one_by_one.items():
        found = Counter(module.cells)
        assert _registers(found) == _registers(whole[name])
        # What one process makes of a module depends a little on those that it read before.
        assert found.total() - _added(found, whole[name]) == pytest.approx(whole[name].total(), rel=0.01)


def _registers(cells: Counter[str]) -> int:
    return sum(count for kind, count in cells.items() if "DFF" in kind)


def _added(cells: Counter[str], before: Counter[str]) -> int:
    """Buffers behind registers, memories and ports."""
    added = cells["BUF"] - before["BUF"]
    assert added >= 0
    return added


def test_a_module_that_is_kept_is_not_mapped_again(design: str, library: CellLibrary, tmp_path: Path) -> None:
    first, mapped = _map(design, "top", library, tmp_path)
    assert sorted(mapped) == ["leaf", "pair$1", "top"]
    again, mapped = _map(design, "top", library, tmp_path)
    assert (again, mapped) == (first, [])
    _, mapped = _map(design.replace("$reduce_xor", "$reduce_and"), "top", library, tmp_path)
    assert mapped == ["leaf"]
    _, mapped = _map(design, "top", None, tmp_path)
    assert len(mapped) == 3


def test_a_kept_module_that_was_damaged_is_mapped_again(
    design: str, library: CellLibrary, tmp_path: Path
) -> None:
    first, _ = _map(design, "top", library, tmp_path)
    for path in (tmp_path / "cache").glob("*.json"):
        path.write_text("{}")
    again, mapped = _map(design, "top", library, tmp_path)
    assert again == first
    assert len(mapped) == 3


def test_an_interrupted_run_goes_on_where_it_stopped(
    design: str, library: CellLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tools.yosys
    scripts = []

    def interrupted(script: str, folder: Path) -> None:
        scripts.append(script)
        # Two runs a module.
        if len(scripts) == 4:
            raise KeyboardInterrupt
        run(script, folder)

    monkeypatch.setattr(tools, "yosys", interrupted)
    with pytest.raises(KeyboardInterrupt):
        _map(design, "top", library, tmp_path)
    _, mapped = _map(design, "top", library, tmp_path)
    by_size = sorted(split(design, "top").items(), key=lambda entry: len(entry[1]), reverse=True)
    assert mapped == [name for name, _ in by_size[1:]]


def test_a_netlist_is_what_was_counted(design: str, library: CellLibrary, tmp_path: Path) -> None:
    found, _ = _map(design, "top", library, tmp_path)
    netlist = dict(Mapper(library, tmp_path / "cache").netlist(design, "top"))
    assert list(netlist) == list(found)
    kinds = Counter(cell["type"] for cell in json.loads(netlist["pair$1"])["cells"].values())
    assert kinds == Counter({"leaf": 2}) + Counter(found["pair$1"].cells)


def test_a_cache_that_lost_a_netlist_is_named(design: str, library: CellLibrary, tmp_path: Path) -> None:
    _map(design, "top", library, tmp_path)
    for path in (tmp_path / "cache").glob("*.z"):
        path.write_bytes(b"cut")
    with pytest.raises(UserError, match="lost a mapped module; run the command again"):
        list(Mapper(library, tmp_path / "cache").netlist(design, "top"))


def test_a_cache_that_cannot_be_made_is_named(design: str, library: CellLibrary, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match="set VREX_CACHE to a folder that can be written"):
        _map(design, "top", library, tmp_path)


MEMORY = """
module top(clk, write, at, data, now, later);
  input clk, write;
  input [{top}:0] at;
  input [7:0] data;
  output [7:0] now;
  output reg [7:0] later;
  reg [7:0] words [{last}:0];
  always @(posedge clk) if (write) words[at] <= data;
  always @(posedge clk) later <= words[at];
  assign now = {now};
endmodule
"""


@pytest.mark.parametrize(
    ("words", "now", "kind"), [(4, "0", "macro"), (2, "0", "registers"), (4, "words[at]", "registers")]
)
def test_two_words_and_words_read_at_once_are_registers(
    words: int, now: str, kind: str, library: CellLibrary, tmp_path: Path
) -> None:
    text = rtlil(MEMORY.format(top=(words - 1).bit_length() - 1, last=words - 1, now=now), tmp_path)
    found, _ = _map(text, "top", library, tmp_path)
    assert found["top"].memories == [{"cell": "words", "depth": words, "width": 8, "kind": kind}]
    assert (found["top"].cells.get("DFF", 0) >= 8 * words) == (kind == "registers")
