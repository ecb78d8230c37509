"""Frame embeddings, computed once for all policies: the vision tower is the same under each."""

import hashlib
import io
from pathlib import Path

import numpy as np

from vrex.errors import UserError
from vrex.files import cache_folder, keep, kept
from vrex.sw.videollm.videollm import VideoLLM

FOLDER = "embeddings"


class EmbeddingCache:
    """Embeddings on disk, found by the model and the pictures themselves.

    Args:
        model: the video LLM.
        digest: identifies the model, such as `model_digest`.
        folder: where the files go; None is a folder of the user's cache ($VREX_CACHE).
    """

    def __init__(self, model: VideoLLM, digest: str, folder: Path | None = None) -> None:
        self._model, self._digest = model, digest
        self._folder = cache_folder() / FOLDER if folder is None else folder

    def embed(self, frames: np.ndarray) -> np.ndarray:
        """uint8 [n, image_size, image_size, 3] to float32 [n, frame tokens, hidden_size].

        Raises:
            UserError: the cache can't be written.
        """
        name = hashlib.sha256(self._digest.encode() + str(frames.shape).encode() + frames.tobytes())
        path = self._folder / f"{name.hexdigest()[:32]}.npy"
        # What is absent or damaged is made anew.
        if (found := kept(path)) is not None:
            loaded: np.ndarray = np.load(io.BytesIO(found), allow_pickle=False)
            return loaded
        embeddings = np.stack([self._model.embed_frame(frame) for frame in frames])
        content = io.BytesIO()
        np.save(content, embeddings)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self._folder} cannot be made ({error.strerror}); "
                "set VREX_CACHE to a folder that can be written"
            ) from error
        keep(path, content.getvalue())
        return embeddings
