"""`vrex generate`."""

import json
from pathlib import Path

import pytest

from vrex.sw import cli


def test_verilog_and_parameters_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "new" / "folder"
    assert cli.main(["generate", "--preset", "tiny", "-o", str(folder)]) == 0
    files = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert files == set(folder.iterdir()) == {folder / "vrex_kvpu.v", folder / "vrex_kvpu.json"}
    assert "module vrex_kvpu(" in (folder / "vrex_kvpu.v").read_text()
    assert json.loads((folder / "vrex_kvpu.json").read_text())["config"]["name"] == "tiny"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["generate", "--preset", "tiny", "-o", str(tmp_path / "file" / "folder")]) == 2
    assert "vrex: error: cannot write to " in capsys.readouterr().err
