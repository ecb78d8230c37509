"""Small designs as Verilator libraries: cycles in, cycles out, millions of them."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from amaranth import Module, Signal

from vrex.hw.tools import arithmetic, verilator
from vrex.hw.tools.export import to_rtlil, to_verilog
from vrex.model.config import Config

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
    m: Module,
    inputs: list[Signal],
    outputs: list[Signal],
    folder: Path,
    parts: str = "",
    functions: Config | None = None,
) -> Simulation:
    """Builds a module whose inputs have any width and whose outputs have at most 32 bits.

    Args:
        m: module.
        inputs, outputs: its ports.
        folder: for the files, empty.
        parts: RTLIL of the modules that it instantiates by name.
        functions: configuration of MAC trees and vector lanes among them, to simulate these as C++ functions.

    Returns:
        Function from the inputs by name, one integer a cycle (of a wide port uint32 [cycles, words], the
        lowest first), to the outputs by name, uint32 [cycles]. The outputs of a cycle are those before its
        rising edge; a run starts from the reset values.

    Raises:
        UserError: the simulator can't be built.
    """
    source, log = folder / "top.v", folder / "build.log"
    text = to_verilog(to_rtlil(m, "top", [*inputs, *outputs]) + parts, "top")
    source.write_text(arithmetic.replaced(text, functions) if functions else text)
    words = {port.name: -(-len(port) // 32) for port in inputs}
    reads = " ".join(_read(name, count) for name, count in words.items())
    writes = " ".join(f"*out++ = top.{port.name};" for port in outputs)
    (folder / "driver.cpp").write_text(DRIVER.format(inputs=reads, outputs=writes))
    verilator.verilate([source], "top", "Vtop", folder, log)
    (folder / "hot.h").write_text("".join(f'#include "{path.name}"\n' for path in folder.glob("V*.cpp")))
    target = folder / "libtop.so"
    files = [folder / "driver.cpp", *verilator.runtime()]
    flags = [*verilator.COMPILE, verilator.SHARED, *verilator.includes(folder)]
    if functions:
        arithmetic.write_tables(folder)
        flags.append(arithmetic.EXACT)
        files += verilator.compile_sources({arithmetic.SOURCE: arithmetic.OPTIMISE}, flags, folder, log)
    verilator.run([verilator.compiler(), *flags, "-O1", "-shared", "-o", target, *files, "-lpthread"], log)
    library = verilator.load(target)

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
