"""The training loop on models of a few thousand parameters, and the script around it."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vrex.errors import UserError
from vrex.sw.cli import main as cli
from vrex.sw.videollm.checkpoint import SHIPPED
from vrex.sw.videollm.procstream import EASY, HARD
from vrex.sw.videollm.training.samples import NOTHING, PROTOCOL, Batch, Mix, collate, draw, words
from vrex.sw.videollm.videollm import VideoLLM

torch = pytest.importorskip("torch")
model = pytest.importorskip("vrex.sw.videollm.training.model")
trainer = pytest.importorskip("vrex.sw.videollm.training.trainer")
folder = pytest.importorskip("vrex.sw.videollm.training.folder")
load_file = pytest.importorskip("safetensors.torch").load_file

ROOT = Path(__file__).parents[4]
SHAPE = model.ModelShape(
    patch=16,
    vision_width=16,
    vision_layers=1,
    vision_heads=2,
    width=24,
    layers=2,
    heads=2,
    kv_heads=1,
    head_dim=8,
    ffn=32,
)
WORDS = [
    *(
        "--patch",
        "16",
        "--vision-width",
        "16",
        "--vision-layers",
        "1",
        "--vision-heads",
        "2",
        "--width",
        "24",
    ),
    *("--layers", "2", "--heads", "2", "--kv-heads", "1", "--head-dim", "8", "--ffn", "32"),
    *("--lengths", "10", "--batch", "2", "--test-every", "2", "--test-videos", "2", "--warmup", "2"),
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def a_plan(**changes: Any) -> Any:
    values = {"lengths": (10, 16), "batch": 3, "steps": 6, "warmup": 2, "test_every": 3, "test_videos": 2}
    return trainer.Plan(**{"mix": Mix(HARD), "shape": SHAPE, **values, **changes})


def contents(out: Path) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """State, log and weights of a run."""
    state = torch.load(out.with_name("model.training") / "state.pt", weights_only=True)
    log = json.loads((out.with_name("model.training") / "log.json").read_text())
    return state, log, (out / "model.safetensors").read_bytes()


def assert_same(one: Any, two: Any) -> None:
    """Bit for bit, whatever it is made of."""
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_same(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_same(a, b)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    else:
        assert one == two


def test_a_run_in_pieces_is_the_run_without_a_break(tmp_path: Path) -> None:
    paths = [tmp_path / name / "model" for name in ("whole", "pieces")]
    for path in paths:
        path.parent.mkdir()
    assert trainer.Trainer(a_plan(), paths[0]).run(1e9)
    for step in range(1, 7):
        torch.rand(step)  # whatever happens in between
        piece = trainer.Trainer(a_plan(), paths[1])
        assert piece.step == step - 1
        assert piece.run(0.0) == (step == 6)
    whole, pieces = map(contents, paths)
    assert_same(whole[0], pieces[0])
    assert whole[1] == pieces[1]
    assert whole[2] == pieces[2]
    assert [entry["step"] for entry in whole[1]["log"]] == [3, 6]
    assert sorted(path.name for path in paths[0].parent.rglob("*")) == [
        *("config.json", "log.json", "log.png", "model", "model.safetensors", "model.training"),
        *("state.pt", "tokenizer.json"),
    ]


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    out = tmp_path / "model"
    assert trainer.Trainer(a_plan(steps=2), out).run(1e9)
    before = contents(out)
    assert trainer.Trainer(a_plan(steps=2), out).run(1e9)
    assert_same(before, contents(out))


def test_a_process_that_draws_the_videos_changes_nothing(tmp_path: Path) -> None:
    runs = [trainer.Trainer(a_plan(steps=2), tmp_path / f"{workers}", workers=workers) for workers in (0, 1)]
    assert [run.run(1e9) for run in runs] == [True, True]
    assert_same(runs[0].model.state_dict(), runs[1].model.state_dict())
    assert runs[0].log == runs[1].log


def test_bf16_gives_about_the_same_gradient(tmp_path: Path) -> None:
    """As on a GPU, where the arithmetic is autocast."""
    run = trainer.Trainer(a_plan(), tmp_path / "model")
    batch = trainer.Videos(run.plan)[0]
    labels, weights = torch.from_numpy(batch.labels), torch.from_numpy(batch.weights)
    gradients = []
    for low in (False, True):
        run.model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            logits = run.model(torch.from_numpy(batch.frames), torch.from_numpy(batch.ids))
        assert (logits.dtype == torch.bfloat16) == low
        model.loss_of(logits, labels, weights).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in run.model.parameters()]))
    error = torch.linalg.vector_norm(gradients[1] - gradients[0]) / torch.linalg.vector_norm(gradients[0])
    assert 0 < float(error) < 0.1


def test_seeds_make_other_runs(tmp_path: Path) -> None:
    one, two = (trainer.Videos(a_plan(seed=seed))[0] for seed in (0, 1))
    assert not np.array_equal(one.frames[:10], two.frames[:10])
    first, second = (trainer.Trainer(a_plan(seed=seed), tmp_path / str(seed)).model for seed in (0, 1))
    assert not torch.equal(first.connector[0].weight, second.connector[0].weight)


def test_steps_see_different_videos_of_all_lengths() -> None:
    videos = trainer.Videos(a_plan(steps=12))
    batches = [videos[step] for step in range(12)]
    counts = {len(batch.frames) // len(batch.ids) for batch in batches}
    assert counts == {10, 16}
    assert {len(batch.ids) for batch in batches} == {3, 1}
    firsts = {batch.frames[0].tobytes() for batch in batches}
    assert len(firsts) == 12


def test_a_gradient_that_is_not_finite_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer.Trainer(a_plan(), tmp_path / "model")
    batch = trainer.Videos(run.plan)[0]
    run.learn(batch)
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "loss_of", lambda *given: model.loss_of(*given) * math.nan)
        assert math.isnan(run.learn(batch))
    assert run.skipped == 1
    assert_same(before, run.model.state_dict())
    assert math.isfinite(run.learn(batch))
    assert run.skipped == 1
    assert not torch.equal(before["connector.0.weight"], run.model.connector[0].weight)


def test_the_loss_falls(tmp_path: Path) -> None:
    run = trainer.Trainer(a_plan(steps=40, rate=1e-2, mix=Mix(EASY)), tmp_path / "model")
    losses = [run.learn(run_batch) for run_batch in map(trainer.Videos(run.plan).__getitem__, range(25))]
    assert np.mean(losses[-5:]) < 0.75 * np.mean(losses[:3])


def test_the_rate_rises_and_falls() -> None:
    plan = a_plan(steps=100, warmup=10, rate=1.0)
    rates = [plan.learning_rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert np.argmax(rates) == 9
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[50] == pytest.approx(0.02 + 0.98 / 2)
    assert rates[99] == pytest.approx(0.02, abs=1e-3)


def test_weights_decide_how_much_a_word_counts() -> None:
    logits = torch.zeros(1, 3, 4)
    logits[0, 0, 1] = 5.0
    labels = torch.tensor([[1, 2, NOTHING]])
    right, wrong = -torch.log_softmax(logits[0, 0], 0)[1], math.log(4)
    for weights, expected in (([1.0, 0.0, 0.0], right), ([1.0, 0.1, 0.0], (right + 0.1 * wrong) / 1.1)):
        loss = model.loss_of(logits, labels, torch.tensor([weights]))
        assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_an_answer_counts_when_all_its_words_are_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trainer.Trainer(a_plan(test_videos=6, lengths=(80,)), tmp_path / "model")
    samples = [draw(run.plan.mix, trainer.TEST_SEEDS + number, 80) for number in range(6)]
    asked = sum(len(sample.answers) for sample in samples)
    spoil = False

    def perfect(batch: Batch) -> Any:
        logits = torch.nn.functional.one_hot(torch.from_numpy(batch.labels).clamp(min=0), 128).float()
        if spoil:
            # The <eos> of every answer becomes another word.
            logits[..., PROTOCOL.index("<eos>")] = -1
        return logits

    monkeypatch.setattr(run, "_logits", perfect)
    result = run.test()
    assert all(right == total for right, total in result.values())
    answers = [kind for kind in result if kind not in ("silent", "speak")]
    assert sum(result[kind][1] for kind in answers) == asked > 6
    spoil = True
    result = run.test()
    assert all(result[kind][0] == 0 for kind in answers)
    assert result["silent"][0] == result["silent"][1] > 100


@pytest.mark.parametrize("level", [EASY, HARD], ids=["easy", "hard"])
def test_the_default_is_the_shipped_models_shape_and_both_fit_in_40_mb(level: Any, tmp_path: Path) -> None:
    size = folder.write_model(
        model.StreamModel(model.ModelShape()), model.ModelShape(), level, tmp_path / "m"
    )
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == sorted(
        path.name for path in SHIPPED.iterdir()
    )
    written, shipped = (json.loads((path / "config.json").read_text()) for path in (tmp_path / "m", SHIPPED))
    assert written["procstream"].pop("level") == level.name
    if level is EASY:
        assert written == shipped
        assert json.loads((tmp_path / "m" / "tokenizer.json").read_text()) == json.loads(
            (SHIPPED / "tokenizer.json").read_text()
        )
    shapes = []
    for path in (tmp_path / "m", SHIPPED):
        tensors = load_file(path / "model.safetensors")
        shapes.append({name: tensor.shape for name, tensor in tensors.items()})
        assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert shapes[0] == shapes[1]
    assert size + sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 40e6


def test_a_run_can_begin_with_the_shipped_weights(tmp_path: Path) -> None:
    """The tower of the shipped model, another decoder, another level: what fits is taken, words by name."""
    shape = model.ModelShape(width=256, layers=1, heads=4, kv_heads=2, ffn=64)
    run = trainer.Trainer(trainer.Plan(Mix(HARD), shape, init=SHIPPED), tmp_path / "model")
    other = trainer.Trainer(trainer.Plan(Mix(HARD), shape), tmp_path / "model")
    shipped = {name: tensor.float() for name, tensor in load_file(SHIPPED / "model.safetensors").items()}
    state, random = run.model.state_dict(), other.model.state_dict()
    for name, tensor in state.items():
        if name.startswith(("vision_tower.", "connector.")):
            assert torch.equal(tensor, shipped[name]), name
    mlp = "language_model.model.layers.0.mlp.up_proj.weight"
    assert torch.equal(state[mlp], random[mlp])
    ours, theirs = words(HARD), words(EASY)
    table = state["language_model.model.embed_tokens.weight"]
    for word in ("task15", "ring", "<eos>", "now"):
        expected = shipped["language_model.model.embed_tokens.weight"][theirs.index(word)]
        assert torch.equal(table[ours.index(word)], expected)
    new = ours.index("task63")
    assert torch.equal(table[new], random["language_model.model.embed_tokens.weight"][new])
    with pytest.raises(UserError, match="is not a folder"):
        trainer.Trainer(trainer.Plan(shape=shape, init=tmp_path / "missing"), tmp_path / "model")


def test_the_product_computes_what_was_trained(tmp_path: Path) -> None:
    """The folder's logits in numpy against the trained model's, its weights rounded as in the file."""
    run = trainer.Trainer(a_plan(steps=3, rate=1e-2), tmp_path / "model")
    assert run.run(1e9)
    for parameter in run.model.parameters():
        parameter.data = parameter.data.bfloat16().float()
    sample = draw(run.plan.mix, 7, 12)
    with torch.no_grad():
        batch = collate([sample])
        expected = run.model(torch.from_numpy(batch.frames), torch.from_numpy(batch.ids))[0].numpy()
    product = VideoLLM.load(tmp_path / "model")
    x = product.embed_text(sample.ids.tolist())
    x[sample.ids == PROTOCOL.index("<v>")] = np.concatenate(
        [product.embed_frame(frame) for frame in sample.frames]
    )
    given = product.decoder.logits(product.decoder.forward(x, product.decoder.new_cache("float32")))
    np.testing.assert_allclose(given, expected, atol=1e-3 * np.abs(expected).max())


# -- the script ------------------------------------------------------------------------------------------


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "train_procstream", ROOT / "scripts" / "train_procstream.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_same_command_goes_on_and_the_model_runs(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["--out", "model", "--level", "hard", "--steps", "3", *WORDS]
    assert script.main([*words, "--minutes", "0.00001"]) == 0
    assert "step 1 of 3, model in model, log and plot in model.training; the same command goes on" in (
        capsys.readouterr().out
    )
    assert script.main(words) == 0
    assert "step 3 of 3, model in model, log and plot in model.training\n" in capsys.readouterr().out
    assert Path("model.training/log.png").read_bytes().startswith(b"\x89PNG")
    run = ["run", "--video", "procstream:hard:1", "--frames", "12", "--policy", "full", "--model", "model"]
    assert cli.main([*run, "--json", "run.json"]) == 0
    assert json.loads(Path("run.json").read_text())["frames"] == 12
    words = ["--level", "hard", "--policies", "full", "--lengths", "40", "--suites", "tasks,needles"]
    assert (
        cli.main(["eval", *words, "--videos", "1", "--jobs", "1", "--model", "model", "--json", "e.json"])
        == 0
    )
    result = json.loads(Path("e.json").read_text())
    assert result["level"] == "hard"
    assert {row["suite"] for row in result["rows"]} == {"tasks", "needles"}
    assert all(0.1 < row["ideal"] <= 1 for row in result["rows"])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--level", "hardest"], "no level 'hardest'"),
        (["--kinds", "now,why"], "no kind of question 'why'"),
        (["--lengths", "0"], "--lengths: '0' is not a whole number of at least 1"),
        (["--device", "toaster"], "device 'toaster' is not there"),
        (["--kv-heads", "3"], "kv_heads (3) does not divide heads (2)"),
        (["--patch", "9"], "patch (9) does not divide the pictures' 64 pixels"),
        (["--head-dim", "7"], "RoPE needs an even number"),
        (["--out", "missing/model"], "missing"),
    ],
)
def test_bad_input(
    script: ModuleType,
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert script.main(["--out", "model", "--steps", "1", *WORDS, *words]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("train_procstream: error: ")
    assert captured.err.count("\n") == 1
    assert says in captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_state_of_another_run_or_none_at_all_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    trainer.Trainer(a_plan(steps=1), out).run(1e9)
    with pytest.raises(UserError, match="was begun with steps 1, not 2"):
        trainer.Trainer(a_plan(steps=2), out)
    state = tmp_path / "model.training" / "state.pt"
    state.write_bytes(state.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"state\.pt is not the state of a training run"):
        trainer.Trainer(a_plan(steps=1), out)


@pytest.mark.slow
def test_a_small_model_learns_to_say_what_it_sees(tmp_path: Path) -> None:
    """Some minutes: the step just shown, of 36 there are; docs/procstream.md shows a longer run."""
    shape = model.ModelShape(16, 64, 2, 2, 96, 2, 3, 1, 32, 256)
    plan = trainer.Plan(
        mix=Mix(EASY, ("now",)),
        shape=shape,
        lengths=(14,),
        batch=16,
        steps=500,
        rate=1e-3,
        warmup=50,
        test_every=100,
        test_videos=96,
    )
    run = trainer.Trainer(plan, tmp_path / "model")
    assert run.run(1e9)
    losses = [entry["loss"] for entry in run.log]
    assert losses[-1] < 0.5 * losses[0]
    right, asked = run.log[-1]["accuracy"]["now"]
    assert asked > 50
    assert right > 0.2 * asked
