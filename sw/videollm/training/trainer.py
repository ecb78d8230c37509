"""The training loop: it stops at a time limit and resumes from its saved state with the same results."""

import io
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from vrex.errors import UserError
from vrex.files import check_writable, write_file
from vrex.sw.videollm.checkpoint import model_digest
from vrex.sw.videollm.training.folder import read_weights, write_model
from vrex.sw.videollm.training.model import ModelShape, StreamModel, loss_of
from vrex.sw.videollm.training.plot import training_plot
from vrex.sw.videollm.training.samples import PROTOCOL, Batch, Mix, collate, draw

FORMAT = 1
TRAIN_SEEDS = 2**40
"""Videos of the run with seed s count from (1 + s) * TRAIN_SEEDS, far from the benchmark's."""
TEST_SEEDS = 2**39
"""Videos that the model is tested on count from here."""
BETAS = (0.9, 0.98)
DECAY = 0.05
FLOOR = 0.02
"""The learning rate ends at this share of its peak."""
CLIP = 1.0
SAVE_SECONDS = 120.0
"""The state is written so often at least; a kill loses no more."""
SILENT, SPEAK = PROTOCOL.index(","), PROTOCOL.index("]")

Progress = Callable[[int, dict[str, Any]], None]


@dataclass(frozen=True)
class Plan:
    """Everything that determines what a run computes.

    Attributes:
        mix: videos and questions.
        shape: of the model.
        lengths: frames of a video, drawn anew for each step.
        batch: videos a step at the first length; longer ones come in proportionally fewer.
        steps: of the optimiser, in all pieces together.
        rate: peak of the learning rate, which rises over `warmup` steps and falls as a cosine.
        seed: of weights and videos.
        test_every: steps between two tests.
        test_videos: number of videos in a test, of the first length.
        init: a model folder whose weights are taken over where they fit; None begins with random ones.
    """

    mix: Mix = field(default_factory=Mix)
    shape: ModelShape = field(default_factory=ModelShape)
    lengths: tuple[int, ...] = (96,)
    batch: int = 48
    steps: int = 20_000
    rate: float = 4e-4
    warmup: int = 300
    seed: int = 0
    test_every: int = 500
    test_videos: int = 16
    init: Path | None = None

    def __post_init__(self) -> None:
        for name in ("batch", "steps", "warmup", "test_every", "test_videos"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; give at least 1")
        if not self.lengths or min(self.lengths) < 1:
            raise UserError("lengths must be frames of at least 1")
        if not (self.rate > 0 and math.isfinite(self.rate)):
            raise UserError(f"the learning rate is {self.rate}; give a number above 0")
        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}; give 0 or more")

    def learning_rate(self, step: int) -> float:
        """Of step `step`, counted from 0."""
        fall = 0.5 * (1 + math.cos(math.pi * step / self.steps)) * (1 - FLOOR) + FLOOR
        return self.rate * min(1.0, (step + 1) / self.warmup) * fall

    def describe(self) -> dict[str, Any]:
        """For JSON; runs with the same description compute the same."""
        mix = {"level": self.mix.level.name, "older": self.mix.level.older, "kinds": list(self.mix.kinds)}
        values = asdict(self) | {"lengths": list(self.lengths)}
        values["init"] = model_digest(self.init) if self.init else None
        del values["mix"], values["shape"]
        return {**mix, **asdict(self.shape), **values}


class Videos(Dataset):
    """A dataset whose item i is the batch of step i, the same in every process and run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __len__(self) -> int:
        return self.plan.steps

    def __getitem__(self, step: int) -> Batch:
        plan = self.plan
        frames = int(np.random.default_rng([plan.seed, step]).choice(plan.lengths))
        count = max(1, plan.batch * plan.lengths[0] // frames)
        first = (1 + plan.seed) * TRAIN_SEEDS + step * plan.batch * max(1, plan.lengths[0])
        return collate([draw(plan.mix, first + number, frames) for number in range(count)])


class Trainer:
    """A training run, new or resumed from its state file.

    Args:
        plan: what to do.
        out: the model folder; state, log and plot are beside it, in the folder of the same name with
            `.training` behind it.
        device: of torch, such as cpu or cuda.
        workers: processes that draw videos; 0 draws them in this one.

    Raises:
        UserError: the state is of another plan or not whole, the device is missing, or a folder can't be
            written.
    """

    def __init__(self, plan: Plan, out: Path, device: str = "cpu", workers: int = 0) -> None:
        self.plan, self.out, self._workers = plan, out, workers
        self._device = _device(device)
        self.folder = out.with_name(f"{out.name}.training")
        self.step, self.skipped = 0, 0
        self.log: list[dict[str, Any]] = []
        self._losses: list[float] = []
        torch.manual_seed(plan.seed)
        self.model = StreamModel(plan.shape).to(self._device)
        self._optimizer = torch.optim.AdamW(self.model.parameters(), betas=BETAS, weight_decay=DECAY)
        if plan.init is not None:
            read_weights(self.model, plan.mix.level, plan.init)
        check_writable(self._state_path if self.folder.is_dir() else self.folder)
        if self._state_path.exists():
            self._restore()

    @property
    def _state_path(self) -> Path:
        return self.folder / "state.pt"

    def run(self, seconds: float, progress: Progress = lambda step, entry: None) -> bool:
        """Trains for about so long at most, tests and writing included; says whether the run is finished.

        Args:
            seconds: of wall time; one step at least is done.
            progress: gets the steps done and what was logged last (empty before that), after each step.

        Raises:
            UserError: state, log or model can't be written.
        """
        start = saved = time.monotonic()
        longest = 0.0
        batches = self._batches()
        while self.step < self.plan.steps:
            began = time.monotonic()
            self._losses.append(self.learn(next(batches)))
            self.step += 1
            if self.step % self.plan.test_every == 0 or self.step == self.plan.steps:
                self._enter()
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
            progress(self.step, self.log[-1] if self.log else {})
            now = time.monotonic()
            longest = max(longest, now - began)
            # What is still to come, a step or the last save, may take as long as the longest step so far.
            if now - start + 2 * longest > seconds:
                break
        self.save()
        write_model(self.model, self.plan.shape, self.plan.mix.level, self.out)
        return self.step == self.plan.steps

    def _batches(self) -> Iterator[Batch]:
        """Those of the steps still to be done."""
        loader = DataLoader(
            Videos(self.plan),
            batch_size=None,
            sampler=range(self.step, self.plan.steps),
            num_workers=self._workers,
            # Its own, or each piece would draw a number from torch's.
            generator=torch.Generator(),
        )
        return iter(loader)

    def learn(self, batch: Batch) -> float:
        """One step of the optimiser, left out if the gradient is not finite; returns the loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = self.plan.learning_rate(self.step)
        self.model.train()
        self._optimizer.zero_grad()
        loss = loss_of(self._logits(batch), self._tensor(batch.labels), self._tensor(batch.weights))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if torch.isfinite(norm):
            self._optimizer.step()
        else:
            self.skipped += 1
        return float(loss.detach())

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

    def _logits(self, batch: Batch) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._device.type != "cpu"):
            logits: torch.Tensor = self.model(self._tensor(batch.frames), self._tensor(batch.ids))
        return logits

    def _enter(self) -> None:
        """Tests the model and logs how it stands."""
        losses = [loss for loss in self._losses if math.isfinite(loss)]
        self.log.append(
            {
                "step": self.step,
                "loss": sum(losses) / len(losses) if losses else None,
                "skipped": self.skipped,
                "rate": self.plan.learning_rate(self.step - 1),
                "accuracy": self.test(),
            }
        )
        self._losses = []

    def test(self) -> dict[str, list[int]]:
        """[right, asked] by kind of question on videos kept for this, the words before a word being given.

        An answer is right when all its words are; `speak` and `silent` are decisions after frames.
        """
        right: Counter[str] = Counter()
        total: Counter[str] = Counter()
        self.model.eval()
        for number in range(self.plan.test_videos):
            sample = draw(self.plan.mix, TEST_SEEDS + number, self.plan.lengths[0])
            with torch.no_grad():
                given = self._logits(collate([sample])).argmax(-1)[0].cpu().numpy()
            hit = given == sample.labels
            for kind, first, end in sample.answers:
                total[kind] += 1
                right[kind] += bool(hit[first:end].all())
            for kind, word in (("silent", SILENT), ("speak", SPEAK)):
                # Answers hold no such word.
                asked = sample.labels == word
                total[kind] += int(asked.sum())
                right[kind] += int(hit[asked].sum())
        return {kind: [right[kind], total[kind]] for kind in sorted(total) if total[kind]}

    def save(self) -> None:
        """Writes state, log and plot, each whole or not at all.

        Raises:
            UserError: the folder can't be written.
        """
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.folder} cannot be made ({error.strerror}); choose another --out"
            ) from error
        state = {
            "format": FORMAT,
            "plan": self.plan.describe(),
            "step": self.step,
            "skipped": self.skipped,
            "log": self.log,
            "losses": self._losses,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_file(self._state_path, content.getvalue())
        log = {"plan": self.plan.describe(), "step": self.step, "log": self.log}
        write_file(self.folder / "log.json", (json.dumps(log, indent=1) + "\n").encode())
        if self.log:
            write_file(self.folder / "log.png", training_plot(log))

    def _restore(self) -> None:
        path = self._state_path
        try:
            state = torch.load(path, map_location=self._device, weights_only=True)
            format_, plan = state["format"], state["plan"]
        except Exception as error:  # torch.load raises whatever a damaged archive makes it stumble over
            raise UserError(
                f"{path} is not the state of a training run; delete it or choose another --out"
            ) from error
        if format_ != FORMAT:
            raise UserError(f"{path} has format {format_}, not {FORMAT}; delete it or choose another --out")
        mine = self.plan.describe()
        changed = [name for name in mine if plan.get(name) != mine[name]]
        if changed:
            name = changed[0]
            raise UserError(
                f"{path} was begun with {name} {plan.get(name)!r}, not {mine[name]!r}; "
                "give the same or choose another --out"
            )
        self.step, self.skipped, self.log = state["step"], state["skipped"], state["log"]
        self._losses = state["losses"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        if state["device_rng"] is not None and self._device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"].cpu(), self._device)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {name!r} is not there; give cpu, or cuda where there is a GPU") from error
    return device
