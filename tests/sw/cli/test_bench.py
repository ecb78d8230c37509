"""`vrex bench`, without the measurement, which its own tests make."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.evaluation.benches import decoder

FIGURES = {"numpy": {"fps": 30.0}, "transformers": {"fps": 20.0}, "ratio": 1.5}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def bench_decoder(progress: Callable[[int, int], None]) -> dict[str, Any]:
        progress(1, 2)
        progress(2, 2)
        return FIGURES

    monkeypatch.setattr(decoder, "bench_decoder", bench_decoder)


@pytest.mark.usefixtures("measured")
def test_figures_go_to_a_file_and_one_line_to_the_user(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bench.json"
    assert cli.main(["bench", "decoder", "--json", str(path)]) == 0
    assert json.loads(path.read_text()) == FIGURES
    printed = capsys.readouterr().out
    assert printed.startswith("numpy 30.0 frames/s, transformers 20.0 frames/s, ratio 1.50;")


@pytest.mark.usefixtures("measured")
def test_figures_on_stdout_are_alone_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "decoder", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == FIGURES


def test_what_the_benchmark_lacks_is_the_users_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def bench_decoder(progress: Callable[[int, int], None]) -> dict[str, Any]:
        raise UserError("transformers is missing; run make setup-dev")

    monkeypatch.setattr(decoder, "bench_decoder", bench_decoder)
    assert cli.main(["bench", "decoder", "--json", str(tmp_path / "bench.json")]) == 2
    assert capsys.readouterr().err == "vrex: error: transformers is missing; run make setup-dev\n"
    assert list(tmp_path.iterdir()) == []
