"""A unit's modules in cells, each mapped by itself and kept.

Yosys optimises and maps every module alone when the hierarchy is kept, so its cells depend on nothing but its
own text and the ports of the modules in it. A unit of any size is therefore mapped module by module, which
fits into memory; and what was mapped is not mapped again, be it after an interruption or for another unit or
preset that has the same module.
"""

import hashlib
import json
import re
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.files import keep, kept
from vrex.hw.tools.synth import buffers, liberty, liberty_syntax, memories, tools
from vrex.hw.tools.synth.liberty import Library, load

COARSE = "synth -run begin:fine -top {top}; memory_collect; opt_clean"
FINE = "opt -full; techmap; opt -fast"
GATES = "dfflegalize -cell $_DFF_P_ 01; abc -g cmos; opt_clean"
MAP = "dfflibmap -liberty cells.lib; abc -liberty cells.lib -script map.abc; opt_clean -purge"
ABC = ["strash", "&get -n", "&dch -f", "&nf", "&put", "buffer -c -N 16", "topo", "upsize", "dnsize"]
"""The mapper's script: structural choices, mapping, then buffers and sizes for what the gates drive."""

MODULE = re.compile(r"^module \\(\S+)$.*?^end$", re.DOTALL | re.MULTILINE)
PORT = re.compile(r"^  wire .*(?:input|output|inout) \d+ (?:signed )?\\\S+$", re.MULTILINE)
INSTANCE = re.compile(r"^  cell \\(\S+) \S+$", re.MULTILINE)


@dataclass(frozen=True)
class CellLibrary:
    """A Liberty file and what it says."""

    path: Path
    library: Library

    @classmethod
    def load(cls, path: Path) -> "CellLibrary":
        """Reads it.

        Raises:
            UserError: it cannot be read, or is no usable Liberty file.
        """
        return cls(path, load(path))


@dataclass(frozen=True)
class MappedModule:
    """One module in cells.

    Attributes:
        ports: as Yosys lists them.
        children: the module of each instance.
        memories: `cell`, `depth`, `width` and `kind` (`vrex.hw.tools.synth.memories`) of each.
        cells: their number by type, without memories and instances.
        transistors: Yosys's estimate, with generic gates.
    """

    ports: dict[str, Any]
    children: dict[str, str]
    memories: list[dict[str, Any]]
    cells: dict[str, int]
    transistors: int | None


def flags(library: CellLibrary | None) -> dict[str, str]:
    """What Yosys and its mapper are told."""
    coarse = f"{COARSE.format(top='MODULE')}; memory_map of registers and logic; {FINE}"
    if library is None:
        return {"yosys": f"{coarse}; {GATES}"}
    return {"yosys": f"{coarse}; {MAP}", "abc": "; ".join(ABC)}


class Mapper:
    """Maps modules, or finds them in the cache.

    Args:
        library: None for generic gates.
        cache: folder that keeps modules.
    """

    def __init__(self, library: CellLibrary | None, cache: Path) -> None:
        self.library, self.cache = library, cache
        rules = [flags(library), tools.versions(tools.YOSYS), buffers.FANOUT]
        own = [Path(str(part.__file__)).read_bytes() for part in (buffers, liberty, liberty_syntax, memories)]
        own += [] if library is None else [library.path.read_bytes()]
        self._rules = hashlib.sha256(b"\0".join([json.dumps(rules).encode(), *own])).hexdigest()

    def map(
        self, design: str, top: str, folder: Path, tell: Callable[[str], None]
    ) -> dict[str, MappedModule]:
        """The modules of a unit, by name.

        Args:
            design: RTLIL of the unit (`vrex.hw.tools.generate.netlist`).
            top: its module.
            folder: for the tools' files.
            tell: called with what is mapped next.

        Raises:
            UserError: a tool failed, or the cache can't be written.
        """
        sources = split(design, top)
        missing = [name for name, text in sources.items() if self._kept(text) is None]
        # The largest first: if one is too large, that is known before the others are mapped.
        for number, name in enumerate(sorted(missing, key=lambda name: len(sources[name]), reverse=True)):
            tell(f"{number + 1}/{len(missing)} {name}")
            self._map_one(name, sources[name], folder)
        found = {}
        for name, text in sources.items():
            content = self._kept(text)
            if content is None:
                raise UserError(f"{self.cache} lost a mapped module; run the command again")
            found[name] = MappedModule(**json.loads(content))
        return found

    def netlist(self, design: str, top: str) -> Iterator[tuple[str, str]]:
        """Name and Yosys's JSON of each module of a unit that was mapped to a library's cells.

        Raises:
            UserError: the cache no longer has one.
        """
        for name, text in split(design, top).items():
            content = kept(self._path(text, ".net.z"))
            if content is None:
                raise UserError(f"{self.cache} lost a mapped module; run the command again")
            yield name, zlib.decompress(content).decode()

    def _path(self, text: str, ending: str) -> Path:
        digest = hashlib.sha256(f"{self._rules}\0{text}".encode()).hexdigest()[:20]
        return self.cache / f"synth-{digest}{ending}"

    def _kept(self, text: str) -> bytes | None:
        """What is kept of a module, None if it has to be mapped."""
        if self.library is not None and not self._path(text, ".net.z").is_file():
            return None
        return kept(self._path(text, ".json"))

    def _map_one(self, name: str, text: str, folder: Path) -> None:
        """Maps one module and keeps it.

        In a process of its own: what Yosys makes of a module depends a little on what it read before.
        """
        (folder / "module.il").write_text(text, encoding="utf-8")
        coarse = f"read_rtlil module.il\n{_lines(COARSE.format(top=name))}"
        tools.yosys(f"{coarse}write_rtlil coarse.il\nwrite_json coarse.json\n", folder)
        found = memories.of_module(json.loads((folder / "coarse.json").read_text())["modules"][name])
        fine = f"read_rtlil coarse.il\n{_apart(name, found)}{_memory_map(found)}{_lines(FINE)}"
        fine += f"{_lines(GATES if self.library is None else MAP)}flatten -noscopeinfo {name}\n"
        if self.library is None:
            fine += "tee -q -o stat.json stat -json -tech cmos\n"
        else:
            shutil.copyfile(self.library.path, folder / "cells.lib")
            (folder / "map.abc").write_text("\n".join(ABC) + "\n")
            fine += "read_liberty -lib cells.lib\n"
        # Where a cell was mapped from would fill most of the file.
        tools.yosys(f"{fine}setattr -unset src */*\nwrite_json cells.json\n", folder)
        modules = json.loads((folder / "cells.json").read_text())["modules"]
        module = modules[name]
        cells = {} if self.library is None else self.library.library.cells
        if self.library is not None:
            buffers.insert_buffers(module, self.library.library)
            self._keep(text, ".net.z", zlib.compress(json.dumps(module).encode(), 1))
        kinds = {instance: cell["type"] for instance, cell in module["cells"].items()}
        below = modules.keys() - cells.keys()
        counted = Counter(kind for kind in kinds.values() if kind != memories.MEMORY and kind not in below)
        mapped = MappedModule(
            ports=module["ports"],
            children={instance: kind for instance, kind in kinds.items() if kind in below},
            memories=found,
            cells=dict(sorted(counted.items())),
            transistors=_transistors(name, folder) if self.library is None else None,
        )
        self._keep(text, ".json", json.dumps(asdict(mapped)).encode())

    def _keep(self, text: str, ending: str, content: bytes) -> None:
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"mapped modules can't be kept in {self.cache} ({error.strerror}); "
                "set VREX_CACHE to a folder that can be written"
            ) from error
        keep(self._path(text, ending), content)


def _transistors(name: str, folder: Path) -> int:
    stat = json.loads((folder / "stat.json").read_text())["modules"]
    # A plus sign says that a memory or a module below is not in it.
    return int(str(stat["\\" + name].get("estimated_num_transistors", 0)).rstrip("+"))


def split(design: str, top: str) -> dict[str, str]:
    """The text of each module below `top`, itself included, with the ports alone of the modules in it.

    Args:
        design: RTLIL.
        top: name of a module.
    """
    texts = {found[1]: found[0] for found in MODULE.finditer(design)}
    found: dict[str, str] = {}
    waiting = [top]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        below = sorted(set(INSTANCE.findall(texts[name])) & texts.keys())
        found[name] = "\n".join([texts[name], *(_stub(kind, texts[kind]) for kind in below), ""])
        waiting += reversed(below)
    return found


def _stub(name: str, text: str) -> str:
    return "\n".join(["attribute \\blackbox 1", f"module \\{name}", *PORT.findall(text), "end"])


_PATTERN = str.maketrans("[]*", "???")
"""Of names in a selection, in which brackets would be a pattern."""


def _lines(commands: str) -> str:
    return commands.replace("; ", "\n") + "\n"


def _apart(name: str, found: list[dict[str, Any]]) -> str:
    """Commands that make modules of memories of few words: all of the DPE's at once take Yosys minutes."""
    small = [m["cell"] for m in found if m["kind"] == "registers" and m["depth"] < memories.LEAST_WORDS]
    commands = [
        f"submod -name {name}.memory{number} c:{cell.translate(_PATTERN)}\n"
        for number, cell in enumerate(small)
    ]
    return "".join([f"cd {name}\n", *commands, "cd\n"]) if small else ""


def _memory_map(found: list[dict[str, Any]]) -> str:
    """Commands that turn into gates the memories that are no macros."""
    names = sorted(memory["cell"].translate(_PATTERN) for memory in found if memory["kind"] != "macro")
    return "".join(f"memory_map */{name}\n" for name in names)
