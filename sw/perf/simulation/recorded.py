"""Ratios and cluster sizes as a run of the video LLM recorded them (`vrex run --json`)."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.perf.description.method import Method
from vrex.sw.perf.description.workload import Model
from vrex.text import from_json


def read(path: Path, model: Model, name: str, method: Method) -> tuple[list[float], Method]:
    """Each layer's ratio, and the method with the recorded size of clusters.

    Args:
        path: what `vrex run --json` wrote.
        model, name: the model that is simulated.
        method: whose constants give way.

    Raises:
        UserError: the file is none of a run, or of a run of another model.
    """
    try:
        found: Any = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a file that exists") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON file: {error}; give what `vrex run --json` wrote") from error
    ratios = _field(found, path, "ratio", "per_layer_head")
    clusters = _field(found, path, "tokens_per_cluster")
    if not isinstance(ratios, list) or not all(isinstance(heads, list) and heads for heads in ratios):
        raise UserError(f"{path}: field ratio.per_layer_head is no list of layers; give a trace of a run")
    shape = len(ratios), len(ratios[0]) if ratios else 0
    if shape != (model.layers, model.kv_heads):
        raise UserError(
            f"{path}: field ratio.per_layer_head has {shape[0]} layers of {shape[1]} KV heads, "
            f"but model {name} has {model.layers} of {model.kv_heads}; give a trace of that model"
        )
    means = []
    for layer, heads in enumerate(ratios):
        for value in heads:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise UserError(
                    f"{path}: field ratio.per_layer_head[{layer}] = {value!r} is not within 0 and 1"
                )
        means.append(sum(heads) / len(heads))
    if isinstance(clusters, bool) or not isinstance(clusters, int | float) or clusters < 1:
        raise UserError(
            f"{path}: field tokens_per_cluster = {clusters!r} is not at least 1; record it with policy resv"
        )
    return means, replace(method, cluster_tokens=float(clusters))


def _field(found: Any, path: Path, *names: str) -> Any:
    for place, name in enumerate(names):
        if not isinstance(found, dict) or name not in found:
            raise UserError(
                f"{path}: field {'.'.join(names[: place + 1])} is missing; give what `vrex run --json` wrote"
            )
        found = found[name]
    return found
