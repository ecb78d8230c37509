"""VideoLLM-Online's layout: language model, SigLIP model, and a LoRA adapter that brings the connector."""

import dataclasses
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.checkpoint import Checkpoint
from vrex.sw.videollm.config import TextConfig
from vrex.sw.videollm.lora_settings import read_lora_settings
from vrex.sw.videollm.weights import EMBEDDINGS, HEAD, check_read, text_modules, text_names

ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
PREFIX = "base_model.model."
"""What PEFT puts before the names of the model that it adapts."""
CONNECTOR = tuple(f"connector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias"))


class Adapter:
    """A LoRA adapter of PEFT.

    W becomes W + s B A, s = alpha / r, or alpha / sqrt(r) with `use_rslora`; with `use_dora` each output of
    that is scaled to the norm that the adapter holds. `modules_to_save` are taken whole, and of the
    embeddings the rows of `trainable_token_indices`.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors.

    Raises:
        UserError: a file is missing or broken, or the adapter is of another kind.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / ADAPTER_FILE
        self.tensors = Checkpoint(folder, ADAPTER_FILE)
        self.settings = read_lora_settings(folder / ADAPTER_CONFIG)

    def holds(self, module: str) -> bool:
        """Whether the adapter changes a module, such as `lm_head`, in any way."""
        return any(name.startswith(f"{PREFIX}{module}.") for name in self.tensors.names)

    def whole(self, module: str) -> str | None:
        """The name of the tensor that takes the place of the module's weight, None where there is none."""
        names = (f"{PREFIX}{module}.weight", f"{PREFIX}{module}.base_layer.weight")
        return next((name for name in names if name in self.tensors), None)

    def adapted(self, module: str, weight: np.ndarray) -> np.ndarray:
        """A weight, float32 [outputs, inputs] or [channels], with what LoRA adds to it.

        Raises:
            UserError: the adapter's tensors do not fit the weight.
        """
        at = f"{PREFIX}{module}"
        parts = [f"{at}.lora_{part}.weight" for part in "AB"]
        if module == EMBEDDINGS:
            parts = [f"{at}.lora_embedding_{part}" for part in "AB"]
        if not self.tensors.names & set(parts):
            return weight
        rank = self.settings.rank_of(module)
        inputs, outputs = weight.shape if module == EMBEDDINGS else weight.shape[::-1]
        a, b = self._fitting(parts[0], rank, inputs), self._fitting(parts[1], outputs, rank)
        change = np.float32(self.settings.scale_of(module)) * (b @ a)
        changed = weight + (change.T if module == EMBEDDINGS else change)
        if self.settings.dora and module != EMBEDDINGS:
            norms = np.sqrt(np.square(changed).sum(axis=1, keepdims=True))
            changed *= self._fitting(f"{at}.lora_magnitude_vector", outputs)[:, None] / norms
        return changed

    def replace_rows(self, module: str, weight: np.ndarray) -> np.ndarray:
        """An embedding, float32 [tokens, channels], with the rows that the adapter trained in their places.

        Raises:
            UserError: the rows do not fit the embedding, or nothing says which they are.
        """
        name = rows_of(module)
        if name not in self.tensors:
            return weight
        ends = [end for end in self.settings.tokens if f".{module}".endswith(f".{end}")]
        ids = self.settings.tokens[ends[0]] if ends else ()
        if max(ids, default=len(weight)) >= len(weight):
            raise UserError(
                f"{self.path}: tensor {name} holds rows that trainable_token_indices does not name; "
                "give the adapter of this base model"
            )
        weight = weight.copy()
        weight[list(ids)] = self._fitting(name, len(ids), weight.shape[1])
        return weight

    def _fitting(self, name: str, *shape: int) -> np.ndarray:
        try:
            return self.tensors.tensor(name, shape)
        except UserError as error:
            raise UserError(f"{error}; give the adapter of this base model") from error

    def check_used(self, config: TextConfig) -> None:
        """Makes sure that every tensor changes the model in a way that is known here.

        Raises:
            UserError: one does not.
        """
        known = set(CONNECTOR)
        for module, shape in text_modules(config).items():
            known |= {f"{module}.weight", f"{module}.base_layer.weight"}
            if module == EMBEDDINGS:
                known |= {f"{module}.lora_embedding_{part}" for part in "AB"}
            elif len(shape) == 2:
                known |= {f"{module}.lora_{part}.weight" for part in "AB"}
                known |= {f"{module}.lora_magnitude_vector"} if self.settings.dora else set()
        known |= {rows_of(module).removeprefix(PREFIX) for module in (EMBEDDINGS, HEAD)}
        for name in sorted(self.tensors.names):
            if not name.startswith(PREFIX) or name.removeprefix(PREFIX) not in known:
                raise UserError(
                    f"{self.path}: tensor {name} changes something that the base model does not have, "
                    "or in a way that is not supported; give another adapter"
                )


def rows_of(module: str) -> str:
    """The name of the tensor with the rows that an adapter trained of an embedding."""
    return f"{PREFIX}{module}.token_adapter.trainable_tokens_delta"


class Assembled:
    """Tensors of base, adapter and vision model by the names that the shipped checkpoint has (`Tensors`).

    Attributes:
        config: the language model's; its head and embeddings are no longer one tensor where the adapter
            changes either.

    Raises:
        UserError: one of the three holds a tensor that is not understood.
    """

    def __init__(self, base: Checkpoint, adapter: Adapter, vision: Checkpoint, config: TextConfig) -> None:
        adapter.check_used(config)
        self._base, self._adapter, self._vision = base, adapter, vision
        self._is_tied = config.tied
        base.check_tied(f"{HEAD}.weight", f"{EMBEDDINGS}.weight", config.tied)
        check_read(base.source, base.names, text_names(config))
        apart = adapter.holds(HEAD) or adapter.holds(EMBEDDINGS)
        self.config = dataclasses.replace(config, tied=config.tied and not apart)
        # The tower's own checkpoint names its tensors without a prefix, the whole SigLIP's with one.
        whole = any(name.startswith("vision_model.") for name in vision.names)
        self._tower = "vision_model." if whole else ""

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See `Checkpoint.tensor`; the adapter is merged into what it changes."""
        if name.startswith("connector."):
            return self._adapter.tensors.tensor(PREFIX + name, shape)
        if name.startswith("vision_tower."):
            return self._vision.tensor(self._tower + name.removeprefix("vision_tower."), shape)
        module = name.removeprefix("language_model.").removesuffix(".weight")
        weight = self._adapter.adapted(module, self._weight(module, shape))
        if module == HEAD and self._is_tied and rows_of(HEAD) not in self._adapter.tensors:
            weight = self._adapter.replace_rows(EMBEDDINGS, weight)
        return self._adapter.replace_rows(module, weight)

    def _weight(self, module: str, shape: tuple[int, ...]) -> np.ndarray:
        """A weight of the base, or what the adapter puts in its place."""
        whole = self._adapter.whole(module)
        if whole is not None and (not self._shares(module) or self._adapter.settings.is_saved(module)):
            return self._adapter.tensors.tensor(whole, shape)
        if not self._shares(module):
            return self._base.tensor(f"{module}.weight", shape)
        # One tensor in two places: PEFT loads into it what was saved for either, the head last.
        for place in (HEAD, EMBEDDINGS):
            saved = self._adapter.whole(place)
            if saved is not None and not self._adapter.settings.is_saved(place):
                return self._adapter.tensors.tensor(saved, shape)
        return self._base.tensor(f"{EMBEDDINGS}.weight", shape)

    def _shares(self, module: str) -> bool:
        return self._is_tied and module in (HEAD, EMBEDDINGS)

    def check_read(self) -> None:
        """Makes sure that the vision model, once loaded, was read whole.

        Raises:
            UserError: it holds a tensor that is not understood.
        """
        check_read(self._vision.source, self._vision.names, self._vision.read)
