"""The whole model of a checkpoint: vision tower, connector, decoder, tokenizer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vrex.sw.errors import UserError
from vrex.sw.videollm.checkpoint import SHIPPED, Checkpoint
from vrex.sw.videollm.config import ModelConfig, load_config
from vrex.sw.videollm.connector import Connector
from vrex.sw.videollm.decoder import Decoder
from vrex.sw.videollm.tokenizer import Tokenizer
from vrex.sw.videollm.vision import VisionTower


@dataclass(frozen=True)
class VideoLLM:
    """A streaming video LLM in the form of VideoLLM-Online (SigLIP, MLP connector, Llama)."""

    config: ModelConfig
    tokenizer: Tokenizer
    vision: VisionTower
    connector: Connector
    decoder: Decoder

    @classmethod
    def load(cls, path: Path | None = None) -> "VideoLLM":
        """Load a checkpoint folder: config.json, tokenizer.json and safetensors.

        Args:
            path: the folder; None loads the checkpoint that comes with the package.

        Raises:
            UserError: a file is missing or broken, or a tensor is missing or misshapen.
        """
        folder = SHIPPED if path is None else Path(path)
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder; give the folder of a checkpoint")
        config = load_config(folder / "config.json")
        tokenizer = Tokenizer(folder / "tokenizer.json", config)
        checkpoint = Checkpoint(folder)
        return cls(
            config=config,
            tokenizer=tokenizer,
            vision=VisionTower(checkpoint, config),
            connector=Connector(checkpoint, config),
            decoder=Decoder(checkpoint, config.text),
        )

    def embed_frame(self, frame: np.ndarray) -> np.ndarray:
        """uint8 [image_size, image_size, 3] to float32 [frame tokens, decoder hidden_size]."""
        return self.connector(self.vision.frame_tokens(frame))

    def embed_text(self, ids: list[int]) -> np.ndarray:
        """Token ids to float32 [tokens, decoder hidden_size]."""
        return self.decoder.embeddings[ids]
