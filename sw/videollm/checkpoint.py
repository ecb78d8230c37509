"""Checkpoint files: safetensors, whole or in shards, read as float32 and checked against the config."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from vrex.model.arith import from_bf16
from vrex.sw.errors import UserError

SHIPPED = Path(__file__).parent / "checkpoints" / "procstream-tiny"
"""The trained checkpoint that comes with the package."""

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"


class Checkpoint:
    """The tensors of one checkpoint folder, by name.

    Args:
        folder: holds ``model.safetensors``, or shards and ``model.safetensors.index.json``.

    Raises:
        UserError: a file is missing or is not a safetensors file.
    """

    def __init__(self, folder: Path) -> None:
        self._source = folder / _SINGLE
        self._tensors: dict[str, tuple[Path, dict[str, Any]]] = {}
        for path in self._files(folder):
            self._tensors.update({name: (path, entry) for name, entry in _read(path)})

    def _files(self, folder: Path) -> list[Path]:
        if self._source.is_file():
            return [self._source]
        if not (folder / _INDEX).is_file():
            raise UserError(f"{folder} holds neither {_SINGLE} nor {_INDEX}; give a checkpoint folder")
        self._source = folder / _INDEX
        try:
            names = set(json.loads(self._source.read_text(encoding="utf-8"))["weight_map"].values())
            return [folder / name for name in sorted(names)]
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{self._source} is not a valid shard index; restore the file") from error

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """One tensor as float32 of the shape that the config demands.

        Raises:
            UserError: the tensor is missing, has another shape, or is of a type that holds no weights.
        """
        if name not in self._tensors:
            raise UserError(f"{self._source}: tensor {name} is missing; the checkpoint is incomplete")
        path, entry = self._tensors[name]
        if tuple(entry["shape"]) != shape:
            found = tuple(entry["shape"])
            raise UserError(f"{path}: tensor {name} has shape {found}, expected {shape} by config.json")
        return _to_float32(entry, f"{path}: tensor {name}").reshape(shape)


def _read(path: Path) -> list[tuple[str, dict[str, Any]]]:
    try:
        return deserialize(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); restore the file") from error
    except SafetensorError as error:
        raise UserError(f"{path} is not a valid safetensors file ({error}); restore the file") from error


def _to_float32(entry: dict[str, Any], where: str) -> np.ndarray:
    data = bytes(entry["data"])
    match entry["dtype"]:
        case "BF16":
            return from_bf16(np.frombuffer(data, "<u2"))
        case "F16":
            return np.frombuffer(data, "<f2").astype(np.float32)
        case "F32":
            return np.frombuffer(data, "<f4").astype(np.float32)
        case other:
            raise UserError(f"{where} has type {other}, expected BF16, F16 or F32")
