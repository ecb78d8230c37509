"""Widths and layouts that the WTU's components share."""

from enum import Enum

from amaranth import signed
from amaranth.lib import data

from vrex.model.config import WtuConfig

U_BITS = 16
"""A score in integer form, signed."""

PRODUCT_BITS = 33
"""Weight (17 bits, signed) times token count (16 bits, unsigned), signed."""

CODE_BITS = 12
"""An order code (`vrex.model.dre.wtu.order_code`)."""

BIN_BITS = 6
BINS = 1 << BIN_BITS
"""Bins of a histogram: those of `vrex.model.dre.wtu.order_bin`, the codes of one of them, or buckets."""

EXP_SHIFT_BITS = 6
"""The exponent of an `exp` weight is shifted right by up to 63 bits, which leave none of it."""

COMMAND = data.StructLayout(
    {
        "clusters": 16,
        "rows": 16,
        "heads": 6,
        "th_r": 16,
        "transform": 2,
        "selection": 1,
        "scale_mantissa": 16,
        "scale_exponent": signed(8),
    }
)
"""A command: clusters of a row, rows of a head, KV heads, and the rule (`vrex.model.dre.wtu.Rule`)."""

DONE = data.StructLayout({"degenerate": 32})
"""Result of a command: number of `raw` rows whose sum was not positive."""

MODE = data.StructLayout({"long": 1, "streamed": 1, "raw": 1, "by_bucket": 1})
"""How the command's rows are handled.

`long`: a row exceeds the score memory and is sent in tiles, once per pass. `streamed`: the first pass needs
no extremes of the row, so it runs while the row is loaded. `raw`: the transform. `by_bucket`: the selection.
"""


class Purpose(Enum):
    """What a pass over the row is for."""

    FIRST = 0
    """Sums the row and each bin."""
    SECOND = 1
    """Selects what is above the bin of the crossing, and sums each code of that bin."""
    FINAL = 2
    """Selects what is above the crossing, and the first of the clusters whose code equals it."""


PASS = data.StructLayout({"purpose": Purpose, "whole": 1, "cut": BIN_BITS, "limit": CODE_BITS})
"""What a pass compares order codes with.

`limit` is the first code of the crossing's bin (SECOND) or the crossing's own code (FINAL). With `whole`,
whole buckets are selected instead, up to number `cut`, or, where there are no buckets, every cluster.
"""

ROW = data.StructLayout(
    {
        "exponent": 8,
        "u_low": signed(U_BITS),
        "u_high": signed(U_BITS),
        "bucket_shift": 5,
        "exp_shift": EXP_SHIFT_BITS,
    }
)
"""Constants of a row: its exponent, its smallest and largest score in integer form, and two shifts."""


def entry_layout(words: int) -> data.StructLayout:
    """A pipeline's entry: a word of the row, by number; `last` ends the pass, or the tile of a long row.

    Args:
        words: of a tile.
    """
    return data.StructLayout({"valid": 1, "last": 1, "word": range(max(2, words))})


def loaded_layout(lanes: int, words: int) -> data.StructLayout:
    """A word of scores or token counts as it is loaded: its number, and whether it ends the field.

    Args:
        lanes: items of 16 bits in a word.
        words: of a tile.
    """
    return data.StructLayout({"valid": 1, "last": 1, "number": range(max(2, words)), "data": 16 * lanes})


def summary_layout(words: int) -> data.StructLayout:
    """What a pass found in a word: `void` if none of its clusters counts, else the first bin of those.

    Args:
        words: of a tile.
    """
    return data.StructLayout({"valid": 1, "word": range(max(2, words)), "void": 1, "bin": BIN_BITS})


def tile_layout(config: WtuConfig) -> data.StructLayout:
    """The tile in work: `number` in the row, whether it is the `last`, and its `last_word`.

    `partial`: the last word holds fewer clusters than lanes.
    """
    tiles = config.mask_clusters // config.row_clusters
    words = config.row_clusters // config.lanes
    return data.StructLayout(
        {"number": range(max(2, tiles)), "last": 1, "partial": 1, "last_word": range(max(2, words))}
    )


def sum_bits(config: WtuConfig) -> int:
    """Width of the sum of a row's products, signed."""
    return PRODUCT_BITS + config.mask_clusters.bit_length() - 1


def remaining_bits(config: WtuConfig) -> int:
    """Width of what a running sum still has to exceed, signed."""
    return sum_bits(config) + 2
