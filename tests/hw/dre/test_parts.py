"""Units built by themselves refuse parts that do not go together, as the whole configuration does."""

import re
from collections.abc import Callable

import pytest

from vrex.hw.dre.codes.codes import CodeSelect
from vrex.hw.dre.codes.voter import Voter
from vrex.hw.dre.dre import Dre
from vrex.hw.dre.hcu import Hcu
from vrex.hw.dre.kvpu import Kvpu
from vrex.hw.dre.mean import Mean
from vrex.hw.dre.quant import Quant
from vrex.hw.dre.wtu.wtu import Wtu
from vrex.model.config import CodesConfig, HcuConfig, KvmuConfig, MeanConfig, WtuConfig

HCU, WTU, KVMU, MEAN = HcuConfig(), WtuConfig(), KvmuConfig(), MeanConfig()
WIDE_HASH = HcuConfig(hash_bits=128)
SHORT_ROW = WtuConfig(lanes=1, row_clusters=8)
SHORT_HEAD = KvmuConfig(head_dim=16)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Hcu(WIDE_HASH, bus_bits=64), "hcu.hash_bits must fit into a bus beat"),
        (lambda: Hcu(HCU, bus_bits=96), "bus_bits must be a power of two from 64 to 512, not 96"),
        (lambda: Wtu(SHORT_ROW, bus_bits=256), "wtu.row_clusters x 16 bits must hold at least one bus beat"),
        (lambda: Mean(MeanConfig(lanes=8), bus_bits=64), "mean.lanes x 16 bits must fit into a bus beat"),
        (
            lambda: Quant(kvmu=SHORT_HEAD, mean=MeanConfig(lanes=4), bus_bits=512),
            "kvmu.head_dim must fill a bus beat",
        ),
        (
            lambda: CodeSelect(CodesConfig(residents=8192), bus_bits=256),
            "codes.residents must not exceed codes.tokens",
        ),
        (
            lambda: Voter(CodesConfig(lanes=4, residents=4), bus_bits=256),
            "codes.residents must not exceed codes.tokens, and 16 bits of each must fill a bus beat",
        ),
        (lambda: Kvpu(hcu=WIDE_HASH, wtu=WTU, bus_bits=64), "hcu.hash_bits must fit into a bus beat"),
        (
            lambda: Dre(hcu=HCU, wtu=WTU, kvmu=SHORT_HEAD, mean=MEAN, bus_bits=512),
            "kvmu.head_dim must fill a bus beat",
        ),
    ],
)
def test_a_unit_refuses_parts_that_do_not_go_together(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        build()
