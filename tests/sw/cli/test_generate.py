"""`vrex generate`."""

import json
import re
from pathlib import Path

import pytest

from vrex.sw.cli import main as cli


@pytest.mark.parametrize(("options", "unit"), [([], "dre"), (["--unit", "hcu"], "hcu")])
def test_verilog_and_parameters_are_written(
    options: list[str], unit: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "folder"
    assert cli.main(["generate", *options, "--preset", "tiny", "-o", str(folder)]) == 0
    files = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert files == set(folder.iterdir()) == {folder / f"vrex_{unit}.v", folder / f"vrex_{unit}.json"}
    assert f"module vrex_{unit}(" in (folder / f"vrex_{unit}.v").read_text()
    assert json.loads((folder / f"vrex_{unit}.json").read_text())["config"]["name"] == "tiny"


def test_initial_values_are_left_out(tmp_path: Path) -> None:
    for option in ([], ["--no-initial"]):
        folder = tmp_path / f"{len(option)}"
        assert cli.main(["generate", "--unit", "hcu", "--preset", "tiny", *option, "-o", str(folder)]) == 0
        registers = re.findall(r"^  reg .*;", (folder / "vrex_hcu.v").read_text(), re.MULTILINE)
        assert any(" = " in register for register in registers) == (not option)
        assert json.loads((folder / "vrex_hcu.json").read_text())["initial_values"] == (not option)


def test_an_unknown_unit_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "--unit", "gpu", "-o", str(tmp_path / "folder")]) == 2
    assert "--unit: unknown unit 'gpu'; choose one of hcu, " in capsys.readouterr().err
    assert not (tmp_path / "folder").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["generate", "--preset", "tiny", "-o", str(tmp_path / "file" / "folder")]) == 2
    assert "vrex: error: cannot write to " in capsys.readouterr().err
