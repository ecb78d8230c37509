"""Figure `hamming` (the paper's Fig. 7): cosine of two keys against the Hamming distance of their hashes.

SimHash: a bit differs with probability theta / pi, theta the angle between the keys (Charikar, 2002).
"""

from typing import Any

import numpy as np

from vrex.model.lib import arith
from vrex.sw.evaluation.cells import Bench, Clip
from vrex.sw.evaluation.figures.picture import new_figure, png, text_table
from vrex.sw.evaluation.figures.watch import capture_keys
from vrex.sw.retrieval.policies.resv_settings import ResvSettings
from vrex.sw.retrieval.policies.shape import Shape
from vrex.sw.retrieval.policies.tables import flat_keys, groups

SEEDS = (0, 1, 2)
PAIRS = 20_000
"""Of each layer and seed of hyperplanes."""
BINS = 20


def pair_figures(keys: np.ndarray, settings: ResvSettings, layer: int, pairs: np.ndarray) -> np.ndarray:
    """Cosine and Hamming distance of pairs of tokens, as the layer's table compares them.

    Args:
        keys: float32 [KV heads, tokens, head_dim], BF16 values.
        settings: of scope `layer`; hyperplanes are those of `seed` and `n_hp`.
        layer: whose hyperplanes.
        pairs: tokens, int [n, 2].

    Returns:
        float64 [2, n].
    """
    heads, _, dim = keys.shape
    [group] = groups(settings, Shape(layer + 1, heads, heads, dim, 0), layer)
    bits = arith.to_bf16(keys)
    words = group.hashes(bits, 128)
    distance = np.bitwise_count(words[pairs[:, 0]] ^ words[pairs[:, 1]]).sum(axis=1)
    flat = arith.from_bf16(flat_keys(bits)).astype(np.float64)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    cosine = np.einsum("ij,ij->i", flat[pairs[:, 0]], flat[pairs[:, 1]])
    return np.stack([cosine, distance])


def theory(cosine: np.ndarray, n_hp: int) -> np.ndarray:
    """Expected Hamming distance of keys with that cosine."""
    expected: np.ndarray = n_hp * np.arccos(np.clip(cosine, -1, 1)) / np.pi
    return expected


def measure(bench: Bench, clips: list[Clip]) -> dict[str, Any]:
    """Pairs drawn from all tokens of each layer of the first video, for three seeds of hyperplanes."""
    keys = capture_keys(bench, clips[0])
    rng = np.random.default_rng(0)
    by_seed: list[dict[str, Any]] = []
    everything = []
    drawn = [rng.integers(0, keys.shape[2], (PAIRS, 2)) for _ in keys]
    drawn = [pairs[pairs[:, 0] != pairs[:, 1]] for pairs in drawn]
    for seed in SEEDS:
        settings = ResvSettings(seed=seed)
        layers = [pair_figures(own, settings, at, drawn[at]) for at, own in enumerate(keys)]
        both = np.concatenate(layers, axis=1)
        everything.append(both)
        off = both[1] - theory(both[0], settings.n_hp)
        by_seed.append(
            {
                "seed": seed,
                "correlation": _correlation(both),
                "per_layer": [_correlation(layer) for layer in layers],
                "mean_off_theory": float(off.mean()),
                "rms_off_theory": float(np.sqrt((off**2).mean())),
            }
        )
    return {
        "clip": vars(clips[0]),
        "n_hp": ResvSettings().n_hp,
        "tokens": keys.shape[2],
        "pairs": sum(map(len, drawn)),
        "seeds": by_seed,
        "bins": _bins(np.concatenate(everything, axis=1), ResvSettings().n_hp),
    }


def _correlation(both: np.ndarray) -> float:
    return round(float(np.corrcoef(both)[0, 1]), 4)


def _bins(both: np.ndarray, n_hp: int) -> list[dict[str, float]]:
    """Mean and deviation of the distance by cosine, all seeds and layers together."""
    edges = np.linspace(-1, 1, BINS + 1)
    which = np.clip(np.digitize(both[0], edges) - 1, 0, BINS - 1)
    found = []
    for at in range(BINS):
        cosine, distance = both[:, which == at]
        if len(cosine):
            found.append(
                {
                    "cosine": float(cosine.mean()),
                    "n": len(cosine),
                    "mean": float(distance.mean()),
                    "deviation": float(distance.std()),
                    "theory": float(theory(cosine, n_hp).mean()),
                }
            )
    return found


def table(figures: dict[str, Any]) -> str:
    """Correlations by seed, then distances by cosine."""
    seeds: list[tuple[Any, ...]] = [("seed", "correlation", "layers from", "to", "mean off theory", "rms")]
    for own in figures["seeds"]:
        seeds.append(
            (
                own["seed"],
                f"{own['correlation']:.3f}",
                f"{min(own['per_layer']):.3f}",
                f"{max(own['per_layer']):.3f}",
                f"{own['mean_off_theory']:+.2f}",
                f"{own['rms_off_theory']:.2f}",
            )
        )
    bins: list[tuple[Any, ...]] = [("cosine", "pairs", "distance", "deviation", "theory")]
    for own in figures["bins"]:
        numbers = (f"{own[name]:.2f}" for name in ("mean", "deviation", "theory"))
        bins.append((f"{own['cosine']:+.2f}", f"{own['n']}", *numbers))
    return text_table(seeds) + "\n\n" + text_table(bins)


def plot(figures: dict[str, Any]) -> bytes:
    """Distance against cosine, and SimHash's curve."""
    figure, (axes,) = new_figure(1, 5.6)
    bins = figures["bins"]
    axes.errorbar(
        [own["cosine"] for own in bins],
        [own["mean"] for own in bins],
        [own["deviation"] for own in bins],
        fmt="o",
        ms=4,
        capsize=2,
        label="keys, mean and deviation",
    )
    cosine = np.linspace(-1, 1, 201)
    axes.plot(cosine, theory(cosine, figures["n_hp"]), label="SimHash: N_hp theta / pi")
    axes.set(xlabel="cosine of two keys", ylabel=f"Hamming distance of {figures['n_hp']} bits")
    correlations = ", ".join(f"{own['correlation']:.2f}" for own in figures["seeds"])
    axes.set_title(f"correlation by seed: {correlations}", fontsize=9)
    axes.legend(fontsize=8)
    return png(figure)
