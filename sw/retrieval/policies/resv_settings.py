"""The settings of policy `resv`."""

from dataclasses import dataclass

from vrex.errors import UserError
from vrex.model.dre import quant, wtu
from vrex.model.dre.wtu import TH_R_BITS, Rule, Scale, Transform
from vrex.sw.retrieval.policies.narrow import check_kv_bits
from vrex.sw.retrieval.policies.settings import check_choice, check_int, check_th_r

RULES = {"raw": Transform.RAW, "shift": Transform.SHIFT, "exp": Transform.EXP}
SCOPES = ("layer", "head")
PREDICTIONS = ("same", "next", "reuse")
SELECTIONS = {"exact": wtu.Selection.EXACT, "bucket": wtu.Selection.BUCKET}
MEAN_BITS = (16, *quant.BITS)


@dataclass(frozen=True, kw_only=True)
class ResvSettings:
    """Knobs of the policy; the defaults are those that measured best on the shipped checkpoint.

    Attributes:
        rule: how a score becomes a weight per token: `raw` (the paper's), `shift` or `exp`.
        th_r: share of a row's weight to reach, 0 <= th_r < 1.
        th_hd: a token joins a cluster below this Hamming distance, 0..255.
        n_hp: hyperplanes, that is bits of a hash, 1..128.
        scope: one HC table per `layer` or per KV `head`.
        sinks: first tokens, always attended.
        window: most recent frames, always attended.
        predict: whose queries select for layer l: `same`, layer l's own; `next`, those that layer l-1's
            input gives with layer l's weights; `reuse`, layer l-1's selection as it is.
        cluster_first: tokens that leave the window are clustered before the chunk's selection, not after it.
        selection: `exact`, in descending score, or `bucket`, by whole score ranges.
        mean_bits: of a value of Key_cluster as scores read it: 16 is the BF16 mean itself, 8 and 4 a copy
            quantised per cluster and KV head (see `vrex.model.dre.quant`).
        kv_bits: of a value of stored keys and values: 16 is BF16, 4 packed codes (`narrow`).
        seed: of the hyperplanes.

    Raises:
        UserError: a value is out of its range.
    """

    rule: str = "raw"
    th_r: float = 0.3
    th_hd: int = 5
    n_hp: int = 32
    scope: str = "layer"
    sinks: int = 4
    window: int = 10
    predict: str = "same"
    cluster_first: bool = False
    selection: str = "exact"
    mean_bits: int = 16
    kv_bits: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_choice("scope", self.scope, SCOPES)
        check_choice("predict", self.predict, PREDICTIONS)
        check_choice("selection", self.selection, SELECTIONS)
        check_int("th_hd", self.th_hd, 0, 255)
        check_int("n_hp", self.n_hp, 1, 128)
        for name in ("sinks", "window", "seed"):
            check_int(name, getattr(self, name), 0)
        check_th_r(self.th_r)
        check_kv_bits(self.kv_bits)
        if self.mean_bits not in MEAN_BITS:
            raise UserError(f"mean_bits must be 16, 8 or 4, not {self.mean_bits!r}")

    @classmethod
    def paper(cls, predict: str = "same", seed: int = 0) -> "ResvSettings":
        """The paper's own setting (Sections IV and VI): no sinks, no window, CLUSTER before SCORE."""
        return cls(
            rule="raw",
            th_r=0.3,
            th_hd=7,
            n_hp=32,
            scope="layer",
            sinks=0,
            window=0,
            cluster_first=True,
            predict=predict,
            seed=seed,
        )

    def wtu_rule(self, head_dim: int) -> Rule:
        """The WTU's registers; scores come without 1/sqrt(head_dim), so `exp` scales by it."""
        return Rule(
            th_r=min(round(self.th_r * (1 << TH_R_BITS)), (1 << TH_R_BITS) - 1),
            transform=RULES[self.rule],
            selection=SELECTIONS[self.selection],
            scale=Scale.from_float(head_dim**-0.5),
        )
