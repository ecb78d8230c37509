"""Questions before the first frame, in the form that VideoLLM-Online's model was trained on."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("peft")

from tests.sw.evaluation.coin.test_annotations import entry, write
from tests.sw.videollm.test_layouts import WORDS, Folders
from vrex.sw.evaluation.coin.annotations import Case, read_annotations
from vrex.sw.evaluation.coin.cells import CoinCell, Watcher
from vrex.sw.evaluation.coin.scoring import nearest
from vrex.sw.evaluation.points import Point
from vrex.sw.videollm.procstream import make, write_mp4
from vrex.sw.videollm.video import open_video


@pytest.mark.filterwarnings("ignore")
def test_the_question_comes_first_and_one_pass_gives_the_same_word(tmp_path: Path) -> None:
    """<bos> system \\n\\n User: what now \\n [ F , F ] \\n Assistant:, spelled out here."""
    model = Folders(tmp_path, "llama").load()
    path = tmp_path / "a.mp4"
    write_mp4(make(3, 8, 2.0), path)
    annotations = read_annotations(write(tmp_path, {"a": entry("MakeTea", ["what", "now"])}), "test")
    watcher = Watcher(
        model, "digest", annotations, {"a": path}, 2.0, 1, tmp_path / "calibration.npz", tmp_path / "cache"
    )
    case = Case("step", "a", 1, 0.8, 1.4, "what now", ("Now.",))
    result = watcher.run(CoinCell(Point.of("full", {}), case, ""))

    ids = {word: i for i, word in enumerate(WORDS)}
    # The whole of the system sentence: everything before the run of frames.
    system = model.tokenizer.opening("quiet")[:-1]
    asked = [ids[word] for word in ("User", ":", "what", "now", "\n", "[")]
    closing = [ids[word] for word in ("]", "\n", "Assistant", ":")]
    # 0.8 and 1.4 s are rounded up to frames 2 and 3, both of which are seen.
    frames = list(open_video(path, 2.0, 24))[2:4]
    first, second = (model.embed_frame(frame) for frame in frames)
    text = [model.embed_text(part) for part in (system + asked, [ids[","]], closing)]
    x = np.concatenate([text[0], first, text[1], second, text[2]])
    hidden = model.decoder.forward(x, model.decoder.new_cache())
    token = int(model.decoder.logits(hidden[-1:])[0].argmax())
    expected = "" if token in model.config.text.eos else model.tokenizer.decode([token])

    assert result["frames"] == 2
    assert result["asked"] == "what now"
    assert result["given"] == expected
    assert result["right"] == [nearest(expected, annotations.steps) == "Now."]


@pytest.mark.filterwarnings("ignore")
def test_unfinished_annotations_end_with_the_video(tmp_path: Path) -> None:
    model = Folders(tmp_path, "llama").load()
    path = tmp_path / "a.mp4"
    write_mp4(make(3, 8, 2.0), path)
    annotations = read_annotations(write(tmp_path, {"a": entry("MakeTea", ["what", "now"])}), "test")
    watcher = Watcher(model, "d", annotations, {"a": path}, 2.0, 1, tmp_path / "c.npz", tmp_path / "cache")
    for start, end, frames in ((0.0, 0.0, 1), (3.0, 99.0, 2), (50.0, 99.0, 1)):
        case = Case("step", "a", 0, start, end, "what now", ("Now.",))
        assert watcher.run(CoinCell(Point.of("full", {}), case, ""))["frames"] == frames
