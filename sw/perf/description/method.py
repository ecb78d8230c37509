"""How a step gets at its past: what is offloaded, what is selected, by whom, and what overlaps."""

from dataclasses import dataclass

from vrex.sw.perf.description.sections import DATA, flag, load_entry, number, read_toml, whole, word

NONE, FETCH, ALL = "none", "fetch", "all"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method, as `data/methods.toml` describes it.

    Attributes:
        title: as tables name it.
        overlap: `none`: fetch, then compute, layer by layer; `fetch`: the next layer is fetched while this
            one computes, and prediction takes its turn on the same engine; `all`: prediction runs beside too.
        predictor: who selects: `none`, `infinigen`, `rekv`, `resv` (software) or `dre` (our engine).
        offloaded: K and V of the past lie behind the link; else in the accelerator's memory.
        ratio_frame, ratio_text: selected of the past's tokens when a frame or text enters.
        run_tokens: selected tokens that lie at contiguous addresses; 0: the layer as a whole.
        per_head: each KV head's K and V of a token are apart; else a token's of all KV heads together.
        kv_bits: of a value of K and V.
        mean_bits: of a value of a cluster's mean as scores read it.
        cluster_tokens: tokens of a cluster, on average.
    """

    title: str = word()
    overlap: str = word(NONE, FETCH, ALL)
    predictor: str = word("none", "infinigen", "rekv", "resv", "dre")
    offloaded: bool = flag()
    ratio_frame: float = number(most=1)
    ratio_text: float = number(most=1)
    run_tokens: int = whole(zero=True)
    per_head: bool = flag()
    kv_bits: float = number(most=16)
    mean_bits: int = whole(most=16)
    cluster_tokens: float = number()

    def ratio(self, text: bool) -> float:
        """Selected of the past's tokens."""
        return self.ratio_text if text else self.ratio_frame


def methods() -> list[str]:
    """Names of all methods."""
    return list(read_toml(DATA / "methods.toml"))


def load_method(chosen: str) -> Method:
    """A method by its name in `data/methods.toml`, or from a file with its fields.

    Raises:
        UserError: there is none, or a field is wrong.
    """
    return load_entry(Method, "methods.toml", chosen, "method")
