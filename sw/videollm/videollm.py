"""The whole model of a checkpoint: vision tower, connector, decoder, tokenizer."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.sw.videollm.checkpoint import SHIPPED, Checkpoint, Tensors
from vrex.sw.videollm.config import ModelConfig, TextConfig, load_base_config, load_config
from vrex.sw.videollm.connector import Connector
from vrex.sw.videollm.decoder import Decoder
from vrex.sw.videollm.lora import Adapter, Assembled
from vrex.sw.videollm.tokenizer import Tokenizer
from vrex.sw.videollm.vision import VisionTower
from vrex.sw.videollm.weights import EMBEDDINGS, HEAD, check_read, text_names


@dataclass(frozen=True)
class VideoLLM:
    """A streaming video LLM in the form of VideoLLM-Online (SigLIP, MLP connector, Llama)."""

    config: ModelConfig
    tokenizer: Tokenizer
    vision: VisionTower
    connector: Connector
    decoder: Decoder

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        adapter: Path | None = None,
        vision: Path | None = None,
        resident: bool = True,
        decoder: Callable[[Tensors, TextConfig, bool], Decoder] = Decoder,
    ) -> "VideoLLM":
        """Load a checkpoint folder, or the three folders of VideoLLM-Online's layout.

        Args:
            path: holds config.json, tokenizer.json and safetensors of a whole model, or with `adapter` and
                `vision` those of its language model; None loads the checkpoint that comes with the package.
            adapter: the LoRA adapter of the language model, with the connector.
            vision: the SigLIP model.
            resident: keep the decoder's weights in memory as float32; else read a layer when it is needed.
            decoder: makes the decoder of tensors, shapes and `resident`.

        Raises:
            UserError: a file is missing or broken, a tensor is missing or misshapen, or the folders do not
                belong together.
        """
        folder = _folder(SHIPPED if path is None else path)
        if adapter is None and vision is None:
            config, tensors = load_config(folder / "config.json"), Checkpoint(folder)
            names = [f"language_model.{module}.weight" for module in (HEAD, EMBEDDINGS)]
            tensors.check_tied(names[0], names[1], config.text.tied)
            model = cls._assemble(folder, config, tensors, decoder(tensors, config.text, resident))
            understood = text_names(config.text, "language_model.")
            check_read(tensors.source, tensors.names, tensors.read | understood)
            return model
        if path is None or adapter is None or vision is None:
            raise UserError(
                "a language model, its adapter and a vision model belong together; give all three"
            )
        config = load_base_config(folder / "config.json", _folder(vision) / "config.json")
        lora = Adapter(_folder(adapter))
        parts = Assembled(Checkpoint(folder), lora, Checkpoint(vision), config.text)
        config = dataclasses.replace(config, text=parts.config)
        model = cls._assemble(folder, config, parts, decoder(parts, config.text, resident))
        parts.check_read()
        return model

    @classmethod
    def _assemble(cls, folder: Path, config: ModelConfig, tensors: Tensors, decoder: Decoder) -> "VideoLLM":
        return cls(
            config=config,
            tokenizer=Tokenizer(folder / "tokenizer.json", config),
            vision=VisionTower(tensors, config),
            connector=Connector(tensors, config),
            decoder=decoder,
        )

    def embed_frame(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [image_size, image_size, 3] to float32 [frame tokens, decoder hidden_size]."""
        return self.connector(self.vision.frame_tokens(frame))

    def embed_text(self, ids: list[int]) -> np.ndarray:
        """Token ids to float32 [tokens, decoder hidden_size]."""
        return self.decoder.embeddings[ids]


def _folder(path: Path) -> Path:
    if not Path(path).is_dir():
        raise UserError(f"{path} is not a folder; give the folder of a checkpoint")
    return Path(path)
