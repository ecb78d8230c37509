"""Functional coverage: the corner cases of the numeric contract and of the command interface, as named bins.

A bin counts as covered when a test that met it has passed. The regression fails on a bin that no test of
the unit covered, over all its configurations and simulators.
"""

from collections import Counter
from collections.abc import Iterable

from vrex.model.core.instructions import CODE_BITS
from vrex.model.core.instructions import Status as JobStatus


def _ports(sources: Iterable[str], sinks: Iterable[str]) -> list[str]:
    """Bins of the stalls, which the bench fills by itself."""
    starved = [f"{name} starved" for name in sources]
    return starved + [f"{name} blocked" for name in (*sources, *sinks)]


_HCU = [
    "empty table",
    "one cluster",
    "table of one whole tile",
    "table of more than one tile",
    "table of 5000 clusters or more",
    "table full",
    "table just not full",
    "one token",
    "whole chunk",
    "partial last beat of tokens",
    "partial last beat of clusters",
    "partial last row of lanes",
    "tie between clusters",
    "tie between a cluster and one opened in this chunk",
    "tie between clusters opened in this chunk",
    "token joins a cluster opened in this chunk",
    "every token opens a cluster",
    "no token opens a cluster",
    "distance equals threshold",
    "distance one below threshold",
    "largest distance",
    "threshold 0",
    "threshold 255",
    "thousands of tokens in one stream",
    "reset in the middle of a command",
]

_WTU = [
    "row of one cluster",
    "row of the whole memory",
    "row of one tile and one cluster",
    "row of several tiles",
    "last score raises the exponent",
    "every word raises the exponent",
    "crossing among level scores of one word",
    "crossing beyond a tile of level scores",
    "search as long as published",
    "partial last beat",
    "partial last row of lanes",
    "several rows of a head",
    "several heads",
    "rows of a head differ",
    "a tie is cut by the threshold",
    "one distinct score",
    "negative sum",
    "sum of zero",
    "sum cancels to zero",
    "negative scores, positive sum",
    "NaN score",
    "row of NaN only",
    "+Inf score",
    "-Inf score",
    "row of infinities only",
    "+0 and -0 in a row",
    "subnormal score",
    "row of subnormals only",
    "largest finite score",
    "scores below the row's resolution",
    "negative score below the row's resolution",
    "count 0",
    "count 65535",
    "all counts 0",
    "threshold never passed",
    "one cluster suffices",
    "threshold 0",
    "threshold 65535",
    "sum beyond 32 bits",
    "scale 0",
    "scale exponent saturates",
    "scale exponent vanishes",
    "exp weight saturates to 0",
    "shift with sum 0",
    "raw degenerate row",
    "reset in the middle of a command",
    *(f"{rule} {selection}" for rule in ("raw", "shift", "exp") for selection in ("exact", "bucket")),
]

_KVPU = [
    *(
        f"{opcode} ends with {status}"
        for opcode, statuses in {
            "SETREG": ("OK", "BAD_REGISTER", "BAD_VALUE", "BAD_LENGTH"),
            "GETREG": ("OK", "BAD_REGISTER", "BAD_LENGTH"),
            "CLUSTER": ("OK", "BAD_COUNT", "BAD_LENGTH", "TABLE_FULL"),
            "SELECT": ("OK", "BAD_COUNT", "CAPACITY", "BAD_LENGTH"),
            "reserved opcode": ("BAD_OPCODE",),
        }.items()
        for status in statuses
    ),
    "fault with a payload",
    "fault with a length that is no whole number of beats",
    "fault without a payload",
    "good command right after a fault",
    "two faults in a row",
    "CLUSTER of 0 clusters",
    "CLUSTER of more than one tile",
    "SELECT of 0 clusters",
    "SELECT of the whole memory",
    "SELECT of more than the memory",
    "SELECT of 32 KV heads",
    "SELECT with gaps in the mask",
    "SELECT with degenerate rows",
    "write of a counter refused",
    "counter read",
    "register reads back what was written",
    "fault leaves a register as it was",
    "long queue of commands",
    "reset in the middle of a command",
    "reset restores the registers",
    "counters after a reset in the middle of a command",
]

_EDGES = (
    "below the device window",
    "just below the device window",
    "into the end of the device window",
    "behind the device window",
    "before the host window",
    "past the last address",
    "far away",
    "no bytes",
    "no bytes at an odd address",
    "the largest",
)

_AXI = [
    "request of one byte",
    "unaligned start",
    "unaligned end",
    "burst of one beat",
    "longest burst",
    "burst ends at a 4 KiB edge",
    "request crosses a 4 KiB edge",
    "more bursts than may be in flight",
    "answers of different clients overtake each other",
    "reads and writes at once",
    *(f"{kind} {edge}" for kind in ("read", "write") for edge in _EDGES),
    *(
        f"{kind} fails on its {place} beat"
        for kind in ("read", "write")
        for place in ("first", "middle", "last")
    ),
    *(f"silence on {channel}" for channel in ("ar", "r", "aw", "w", "b")),
    "answers come after their request ended",
    "request waits for late answers",
    "data of a write outside come later than the time-out",
    "late answers of a client that takes nothing",
    "client stalls longer than the time-out",
    "time-out of one cycle",
    "silences of a read that add up to more than the time-out",
    "silences of a write that add up to more than the time-out",
    "buffered client full",
    "reset in the middle of a burst",
]

_AXI_READS = [f"read__{client}" for client in range(4)]
_AXI_BEATS = [f"beats__{client}" for client in range(4)]

_MERGE = [
    "burst of one beat",
    "longest burst",
    "burst ends at a 4 KiB edge",
    *(f"{channel} waits for all others" for channel in ("ar", "aw")),
    *(f"{what} fails" for what in ("read", "write")),
    "answers overtake each other",
    "as many bursts under way as may be",
    "beats wait for another port's",
    "beats before their address",
    "buffer is full",
    "buffer of a port that writes is full",
    "burst waits for its beats",
    "drain in the middle of bursts",
    "drain while beats are missing",
    *(f"drain while {channel} is silent" for channel in ("ar", "aw", "w", "r", "b")),
    "reset in the middle of a burst",
]

_SDRAM = [
    "burst of one beat",
    "longest burst",
    "burst goes on in another bank",
    "write of some bytes",
    "write of no bytes",
    "row stays open",
    "no room for beats",
    "burst beyond the chip",
    "burst of an unknown kind",
    "refresh",
    "reset in the middle of a burst",
]

_MERGE_PORTS = range(3)
_MERGE_SOURCES = [f"{channel}{port}" for port in _MERGE_PORTS for channel in ("ar", "aw", "w")]
_MERGE_SINKS = [f"{channel}{port}" for port in _MERGE_PORTS for channel in ("r", "b")]

_REGISTERS = [
    "read is refused",
    *(
        f"write to {access} while {state}"
        for access in ("RW", "RO", "W1C", "OFF", "COUNT", "nothing")
        for state in ("enabled", "disabled")
    ),
    "write of some bytes",
    "interrupt",
    "interrupt is masked",
    "event in the cycle that clears it",
    "reset with enable",
    "register written in work",
    "aw comes first",
    "w comes first",
    "reset in the middle of an access",
]

_ERRORS = ("NONE", "RESPONSE", "TIMEOUT", "OUTSIDE")

_FRONT = [
    "ring wraps",
    "largest ring",
    "ring of ends is full",
    "doorbell while disabled",
    "disabled while a job is in work",
    *(f"{what} ends with {error}" for what in ("read", "write") for error in _ERRORS),
    "reset in the middle of a job",
    # They are never blocked.
    *(f"{name} starved" for name in ("beats", "done", "end")),
]

_FETCH = [
    "empty table",
    "no ring",
    "all segments resident",
    "some segments resident",
    "ring wraps",
    "fewer clusters than the table",
    "more clusters than the table, none of them wanted",
    "largest table",
    "bitmask of no clusters",
    "several heads",
    "gap between heads",
    "head without a cluster",
    "segment without a token",
    "neighbours in both windows",
    "poisoned",
    "head that the table does not have",
    "first cluster that the table does not have",
    "last cluster that the table does not have",
    "heads before a bitmask that cannot be used",
    "segments outside",
    "segments far outside",
    "map outside",
    "header outside",
    "error on the header",
    *(
        f"error on the {place} beat of {what}"
        for place in ("first", "last")
        for what in ("the map", "a segment")
    ),
    "silence on ar",
    "answers of segments fail late",
    "silence on r",
    "run of the most bytes",
    "reset in the middle of a burst",
]

_DPE = [
    "one row",
    "as many rows as there is room for",
    "rows that come too early for their sums",
    "one chunk",
    "several chunks",
    "partial last chunk",
    "several tiles",
    "partial last tile",
    "more results than there is room for",
    "BF16 results",
    "FP32 results",
    "weights by columns",
    "NaN goes in",
    "no rows",
    "no chunks",
    "no tiles",
    "more rows than there is room for",
    "counters after a reset in the middle of a command",
    "reset in the middle of a command",
]

_MEAN = [
    "no beats",
    "one beat",
    "first key",
    "first key of -0 or NaN",
    "first key right after an update",
    "update right after a first key",
    "count 2",
    "count 65535",
    "count a power of two",
    "count not a power of two",
    "the mean stays, the key differs",
    "NaN goes in",
    "NaN of two infinities",
    "infinite result",
    "difference overflows",
    "difference is zero",
    "share is subnormal",
    "result is subnormal",
    "result is -0",
    "sign changes",
    "half way between two results",
    "reset in the middle of a command",
]

_CODES = [
    "one token",
    "as many tokens as fit",
    "partial last word of tokens",
    "partial last beat of the bitmask",
    "no residents",
    "as many residents as fit",
    "partial last word of residents",
    "one row",
    "as many rows as fit",
    "count 0",
    "count above the tokens",
    "count above the tokens with a vote",
    "token without a vote",
    "no token has a vote",
    "a tie is cut by the count",
    "a tie at 0 is cut by the count",
    "a whole share of a row",
    "votes of all rows for one token",
    "row without a score",
    "weight 0",
    "infinite score",
    "a resident has the largest score",
    "scale of a code is subnormal",
    "scale of a code is NaN",
    "reset in the middle of a command",
]

_VOTER = [
    *(f"SETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_VALUE", "BAD_LENGTH")),
    *(f"GETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_LENGTH")),
    *(f"VOTE ends with {status}" for status in ("OK", "BAD_COUNT", "CAPACITY", "BAD_LENGTH")),
    "reserved opcode ends with BAD_OPCODE",
    "counter read",
    "reset in the middle of a command",
]

_RECALL = [
    *(f"SETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_VALUE", "BAD_LENGTH")),
    *(f"GETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_LENGTH")),
    *(
        f"{command} ends with {status}"
        for command in ("STORE", "RECALL")
        for status in (
            *("OK", "BAD_COUNT", "BAD_LENGTH", "BAD_ADDRESS", "OTHER_CODES"),
            *("BUS_ERROR", "TIMEOUT"),
        )
    ),
    "STORE ends with KV_FULL",
    "RECALL ends with CAPACITY",
    "VOTE ends with BAD_OPCODE",
    "FETCH ends with BAD_OPCODE",
    "reserved opcode ends with BAD_OPCODE",
    "STORE to an empty store",
    "STORE into the middle of a beat",
    "STORE of whole beats",
    "codes need a beat more than they come in",
    "STORE of packed K and V",
    "RECALL of packed K and V",
    "RECALL of no token",
    "RECALL of every token",
    "RECALL of several runs",
    "tokens that follow each other",
    "as many tokens as fit",
    "reset in the middle of a burst",
]

_QUANT = [
    *(f"{bits} bits" for bits in (8, 4)),
    "scale is NaN",
    "scale is 0 for its smallness",
    "every value is 0",
    "scale is the smallest",
    "code half way between two",
    "largest code",
    "smallest code",
    "reset in the middle of a command",
]

_VPE_OPCODES = ("FMA", "FNMA", "MUL", "ADD", "SUB", "MAX", "COPY", "SIGN", "RSUM", "RMAX")
_VPE_FUNCTIONS = ("EXP", "RECIP", "RSQRT")

_VPE = [
    *(f"{code}{nan}" for code in (*_VPE_OPCODES, *_VPE_FUNCTIONS) for nan in ("", " with a NaN")),
    *(f"ends with {status}" for status in ("OK", "BAD_OPCODE", "BAD_LENGTH")),
    "operand in BF16",
    "result in BF16",
    "one element for the row",
    "one element",
    "several rows",
    "partial last word",
    "reduction of fewer than 64",
    "reduction of several rounds",
    "subnormal result",
    "infinite result",
    "result is -0",
    "reset in the middle of a command",
]

_LXE = [
    *(f"program ends with {name}" for name in ("OK", "BAD_OPCODE", "BAD_COUNT", "BAD_LENGTH", "BAD_ADDRESS")),
    "a fault in the middle of a program",
    "operand up to the last line",
    "NaN in a program",
    *(f"GEMM of {what} {where}" for what in ("weights", "columns") for where in ("in memory", "on din")),
    "GEMM of groups of rows",
    "partial chunk",
    "partial line of terms",
    "partial tile",
    "several tiles and chunks",
    *(f"VECTOR {code}" for code in (*_VPE_OPCODES, *_VPE_FUNCTIONS)),
    "VECTOR of several rows",
    "VECTOR over its operand",
    *(
        f"{lane} {what} the other lane{verb}"
        for lane in ("VECTOR", "product or move")
        for what, verb in (
            ("reads what", " writes"),
            ("writes what", " reads"),
            ("writes what", " writes"),
            ("shares nothing with", ""),
        )
    ),
    "many programs wait for their report",
    "reset in the middle of a program",
    "counters after a reset in the middle of a program",
]

_TABLE_STATUSES = ("OK", "BAD_COUNT", "BAD_LENGTH", "BAD_ADDRESS", "POISONED", "BUS_ERROR", "TIMEOUT")

_DRE = [
    *(
        f"{command} ends with {status}"
        for command in ("APPEND", "RETRIEVE", "FETCH")
        for status in _TABLE_STATUSES
    ),
    *(f"APPEND ends with {status}" for status in ("TABLE_FULL", "KV_FULL", "CLUSTER_FULL")),
    *(f"RETRIEVE ends with {status}" for status in ("BAD_VALUE", "CAPACITY")),
    "FETCH ends with BAD_MASK",
    *(f"SETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_VALUE", "BAD_LENGTH")),
    *(f"GETREG ends with {status}" for status in ("OK", "BAD_REGISTER", "BAD_LENGTH")),
    "reserved opcode ends with BAD_OPCODE",
    "SELECT ends with BAD_OPCODE",
    "APPEND to an empty table",
    *(f"APPEND to means of {bits} bits" for bits in (16, 8, 4)),
    "APPEND closes a cluster",
    "APPEND to a table with closed clusters",
    "closed clusters in several blocks",
    "RETRIEVE of rows in tiles",
    "segments leave the ring",
    "token joins a cluster of its chunk",
    "commands of several engines at once",
    "command waits for its table",
    "error while a chunk is written",
    "counters after a reset in the middle of a command",
    "table without closed clusters after one with them",
    "APPEND for some of the table's heads",
    "RETRIEVE from a table that claims 64 heads",
    "APPEND waits for a RETRIEVE",
    "APPEND waits for a FETCH",
    "reset in the middle of a burst",
]

_CORE = [
    *(f"job ends with {status.name}" for status in JobStatus),
    *(f"silence on {channel} ends with TIMEOUT" for channel in ("ar", "r", "aw", "w", "b")),
    "ring of ends is full",
    "rings wrap",
    "interrupt is masked",
    "bell while disabled",
    "soft reset of a job in work",
    "reset of a job in work",
    *(
        f"scales of {bits}-bit codes, {how}"
        for bits in CODE_BITS
        for how in ("one for all", "in a row", "apart")
    ),
]

BINS = {
    "hcu": (*_HCU, *_ports(("cmd", "din"), ("dout", "done"))),
    "wtu": (*_WTU, *_ports(("cmd", "din"), ("dout", "done"))),
    "kvpu": (*_KVPU, *_ports(("cmd", "din"), ("dout", "cpl"))),
    "axi": (*_AXI, *_ports((*_AXI_READS, "write", "data"), (*_AXI_BEATS, "done"))),
    "merge": (*_MERGE, *_ports(_MERGE_SOURCES, _MERGE_SINKS)),
    "sdram": (*_SDRAM, *_ports(("ar", "aw", "w"), ("r", "b"))),
    "registers": (*_REGISTERS, *_ports(("ar", "aw", "w"), ("r", "b"))),
    "front": (*_FRONT, *_ports((), ("read", "write", "data", "job"))),
    "fetch": (*_FETCH, *_ports(("cmd", "masks"), ("kv", "done"))),
    "dpe": (*_DPE, *_ports(("cmd", "x", "w"), ("o", "done"))),
    "mean": (*_MEAN, *_ports(("cmd", "mean", "key"), ("o",))),
    "quant": (*_QUANT, *_ports(("cmd", "i"), ("o", "done"))),
    "voter": (*_VOTER, *_ports(("cmd", "din"), ("dout", "cpl"))),
    "recall": (*_RECALL, *_ports(("cmd", "din"), ("dout", "kv", "cpl"))),
    "codes": (*_CODES, *_ports(("cmd", "din"), ("dout", "done"))),
    "vpe": (*_VPE, *_ports(("cmd", "a", "b", "c"), ("o", "done"))),
    "lxe": (*_LXE, *_ports(("cmd", "din"), ("dout", "cpl"))),
    "dre": (*_DRE, *_ports(("cmd", "din"), ("dout", "kv", "cpl"))),
    "core": (*_CORE, *_ports(("ar", "aw", "w"), ("r", "b"))),
}
"""Bins of each unit."""


class Coverage:
    """Bins that one test met."""

    def __init__(self, unit: str) -> None:
        self._known = set(BINS[unit])
        self.hits: Counter[str] = Counter()

    def hit(self, name: str, condition: object = True) -> None:
        """Counts a bin if the condition holds.

        Raises:
            KeyError: there is no such bin.
        """
        if name not in self._known:
            raise KeyError(name)
        if condition:
            self.hits[name] += 1


def holes(unit: str, hits: Iterable[str]) -> list[str]:
    """Bins of a unit that were not hit."""
    met = set(hits)
    return [name for name in BINS[unit] if name not in met]
