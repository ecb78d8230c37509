"""Checkpoint files: safetensors, whole or in shards, memory-mapped; a tensor is read when it is asked for."""

import hashlib
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from vrex.errors import UserError
from vrex.model.lib.arith import from_bf16
from vrex.text import from_json

SHIPPED = Path(__file__).parent / "checkpoints" / "procstream-tiny"
"""The trained checkpoint that comes with the package."""

_SINGLE = "model.safetensors"


class Tensors(Protocol):
    """Tensors by the names that the shipped checkpoint has."""

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """See `Checkpoint.tensor`."""
        ...


class Checkpoint:
    """The tensors of one checkpoint folder, by name.

    The files stay mapped; nothing is read before it is asked for.

    Attributes:
        source: the file, or the index of the shards.
        read: names of the tensors that were asked for so far.

    Args:
        folder: holds the file, or shards and an index of them.
        single: name of the file; the index is `single` with ``.index.json`` behind it.

    Raises:
        UserError: a file is missing or is not a safetensors file.
    """

    def __init__(self, folder: Path, single: str = _SINGLE) -> None:
        self.source = folder / single
        self.read: set[str] = set()
        self._tensors: dict[str, tuple[Path, Any]] = {}
        for path in self._files(folder, single):
            file = _open(path)
            if twice := sorted(self.names & set(file.keys())):
                raise UserError(
                    f"{path} holds tensor {twice[0]}, which {self._tensors[twice[0]][0].name} holds as well; "
                    "remove the file that is none of this checkpoint"
                )
            self._tensors.update(dict.fromkeys(file.keys(), (path, file)))

    @property
    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._tensors)

    def _files(self, folder: Path, single: str) -> list[Path]:
        if self.source.is_file():
            return [self.source]
        index = f"{single}.index.json"
        if not (folder / index).is_file():
            raise UserError(f"{folder} holds neither {single} nor {index}; give a checkpoint folder")
        self.source = folder / index
        try:
            names = set(from_json(self.source.read_text(encoding="utf-8"))["weight_map"].values())
            return [folder / name for name in sorted(names)]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{self.source} is not a valid shard index; restore the file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor that is among `names`."""
        return tuple(self._tensors[name][1].get_slice(name).get_shape())

    def check_tied(self, head: str, embeddings: str, tied: bool) -> None:
        """Makes sure that a head which the configuration ties to the embeddings is no other tensor.

        Raises:
            UserError: it is.
        """
        if tied and head in self and embeddings in self:
            first, second = (self.tensor(name, self.shape(name)) for name in (head, embeddings))
            if not np.array_equal(first, second):
                raise UserError(
                    f"{self.source}: tensor {head} differs from {embeddings}, but tie_word_embeddings of the "
                    "configuration makes them one; correct the configuration"
                )

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor as float32 of the shape that the config demands.

        Raises:
            UserError: the tensor is missing, has another shape, is of a type that holds no weights, or holds
                a NaN or an infinity.
        """
        if name not in self._tensors:
            raise UserError(f"{self.source}: tensor {name} is missing; the checkpoint is incomplete")
        self.read.add(name)
        path, file = self._tensors[name]
        entry = file.get_slice(name)
        found = tuple(entry.get_shape())
        if found != shape:
            raise UserError(f"{path}: tensor {name} has shape {found}, expected {shape} by config.json")
        if entry.get_dtype() not in ("BF16", "F16", "F32"):
            raise UserError(f"{path}: tensor {name} has type {entry.get_dtype()}, expected BF16, F16 or F32")
        values = _to_float32(file.get_tensor(name))
        if not np.isfinite(values).all():
            raise UserError(
                f"{path}: tensor {name} holds a NaN or an infinity, which would spread to every answer; "
                "restore the file"
            )
        return values


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); restore the file") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a valid safetensors file ({error}); restore the file") from error


def _to_float32(values: np.ndarray) -> np.ndarray:
    if values.dtype == ml_dtypes.bfloat16:
        return from_bf16(values.view(np.uint16))
    return values.astype(np.float32)


def model_digest(folder: Path) -> str:
    """SHA-256 of a checkpoint's files, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors")):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
