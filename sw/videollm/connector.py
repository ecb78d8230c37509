"""The connector: two linear layers around an exact GELU, from vision features to decoder embeddings."""

import numpy as np

from vrex.sw.videollm.activations import gelu
from vrex.sw.videollm.checkpoint import Tensors
from vrex.sw.videollm.config import ModelConfig


class Connector:
    """Maps frame tokens of the vision tower to the decoder's embedding space.

    Args:
        checkpoint: the tensors.
        config: the shapes.

    Raises:
        UserError: a tensor is missing or has another shape than the config demands.
    """

    def __init__(self, checkpoint: Tensors, config: ModelConfig) -> None:
        source, target = config.vision.hidden_size, config.text.hidden_size
        self._weights = [
            checkpoint.tensor("connector.0.weight", (target, source)),
            checkpoint.tensor("connector.2.weight", (target, target)),
        ]
        self._biases = [checkpoint.tensor(f"connector.{i}.bias", (target,)) for i in (0, 2)]

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float32 [tokens, vision hidden_size] to float32 [tokens, decoder hidden_size]."""
        hidden = gelu(x @ self._weights[0].T + self._biases[0])
        return hidden @ self._weights[1].T + self._biases[1]
