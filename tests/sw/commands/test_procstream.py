"""`vrex procstream`."""

from pathlib import Path

import pytest

from vrex.sw import cli
from vrex.sw.videollm.procstream import make, read_sidecar


def test_video_and_answers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "video.mp4"
    assert cli.main(["procstream", "7", "--frames", "12", "--fps", "4", "-o", str(path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {"video.mp4", "video.json"}
    sidecar = read_sidecar(tmp_path / "video.json")
    assert (sidecar.seed, sidecar.frames, sidecar.fps) == (7, 12, 4.0)
    assert sidecar.questions == make(7, 12, 4.0).questions
    assert f"12 frames at 4/s; {tmp_path / 'video.json'}: {len(sidecar.questions)} questions" in (
        capsys.readouterr().out
    )
