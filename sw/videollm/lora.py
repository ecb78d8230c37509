"""VideoLLM-Online's layout: language model, SigLIP model, and a LoRA adapter that brings the connector."""

import json
import re
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.checkpoint import Checkpoint
from vrex.sw.videollm.config import TextConfig

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it adapts."""


class Adapter:
    """A LoRA adapter of PEFT: W becomes W + s B A, s = alpha / r, or alpha / sqrt(r) with `use_rslora`.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.

    Raises:
        UserError: a file is missing or broken, or the adapter is of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ADAPTER_FILE
        self.tensors = Checkpoint(folder, ADAPTER_FILE)
        self._rank, self._scale = _settings(folder / ADAPTER_CONFIG)

    def delta(self, name: str, shape: tuple[int, ...]) -> np.ndarray | None:
        """What is added to a weight of the model, float32 `shape`; None where the adapter leaves it alone.

        Raises:
            UserError: the adapter's tensors do not fit the weight.
        """
        parts = [f"{PREFIX}{name.removesuffix('.weight')}.lora_{part}.weight" for part in "AB"]
        if not self.tensors.names & set(parts):
            return None
        outputs, inputs = shape
        try:
            a = self.tensors.tensor(parts[0], (self._rank, inputs))
            b = self.tensors.tensor(parts[1], (outputs, self._rank))
        except UserError as error:
            raise UserError(f"{error}; give the adapter of this base model") from error
        return np.float32(self._scale) * (b @ a)

    def check_used(self, config: TextConfig) -> None:
        """Makes sure that every tensor changes a weight of the model.

        Raises:
            UserError: one does not.
        """
        layers = "|".join(str(i) for i in range(config.layers))
        weight = rf"model\.layers\.({layers})\.(self_attn\.[qkvo]|mlp\.(gate|up|down))_proj|lm_head"
        for name in sorted(self.tensors.names):
            if ".lora_" in name and not re.fullmatch(
                rf"{re.escape(PREFIX)}({weight})\.lora_[AB]\.weight", name
            ):
                raise UserError(
                    f"{self.path}: tensor {name} changes a weight that the base model does not have; "
                    "give the adapter of this base model"
                )


def _settings(path: Path) -> tuple[int, float]:
    """Rank and scale."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); give an adapter folder") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}); restore the file") from error
    kind = values.get("peft_type") if isinstance(values, dict) else None
    if kind != "LORA":
        raise UserError(f"{path}: peft_type is {kind!r}, but only 'LORA' is supported")
    for key, supported in (
        ("use_dora", False),
        ("rank_pattern", {}),
        ("alpha_pattern", {}),
        ("bias", "none"),
    ):
        if values.get(key, supported) not in (supported, None):
            raise UserError(f"{path}: key {key} is {values[key]!r}, but only {supported!r} is supported")
    rank, alpha = values.get("r"), values.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float):
        raise UserError(
            f"{path}: r is {rank!r} and lora_alpha {alpha!r}, expected a whole number and a number"
        )
    return rank, alpha / (rank**0.5 if values.get("use_rslora") else rank)


class Assembled:
    """Tensors of base, adapter and vision model by the names that the shipped checkpoint has (`Tensors`)."""

    def __init__(self, base: Checkpoint, adapter: Adapter, vision: Checkpoint) -> None:
        self._base, self._adapter, self._vision = base, adapter, vision
        # The tower's own checkpoint names its tensors without a prefix, the whole SigLIP's with one.
        whole = any(name.startswith("vision_model.") for name in vision.names)
        self._tower = "vision_model." if whole else ""

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See `Checkpoint.tensor`; the adapter is merged into what it changes."""
        if name.startswith("connector."):
            return self._adapter.tensors.tensor(PREFIX + name, shape)
        if name.startswith("vision_tower."):
            return self._vision.tensor(self._tower + name.removeprefix("vision_tower."), shape)
        own = name.removeprefix("language_model.")
        weight = self._base.tensor(own, shape)
        change = self._adapter.delta(own, shape) if len(shape) == 2 else None
        return weight if change is None else weight + change
