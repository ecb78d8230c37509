"""kill -9 while a stream goes to a file: it reopens with all frames but the one in work."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.sw.retrieval.cache.test_tables import PLAIN, open_tables, play, stored
from tests.sw.tape import SHAPE, Tape, on_host
from vrex.sw.retrieval.cache.tables import journal_of

CHUNK, CHUNKS = 20, 400
SEED = 12
WRITER = f"""
import sys
from pathlib import Path
from tests.sw.retrieval.cache.test_tables import PLAIN, open_tables, play, stored
from tests.sw.tape import Tape
tables = open_tables(Path(sys.argv[1]), PLAIN)
policy, tape = stored(tables, PLAIN), Tape([{CHUNK}] * {CHUNKS}, seed={SEED})
print(tables.tokens // {CHUNK}, flush=True)
for i in range(tables.tokens // {CHUNK}, {CHUNKS}):
    play(policy, tape, first=i, last=i + 1)
    print(i + 1, flush=True)
"""


def kill_after(path: Path, seconds: float) -> int:
    """Streams to the file until killed; returns how many chunks it said were done."""
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert writer.stdout is not None
    begun = writer.stdout.readline()
    time.sleep(seconds)
    writer.send_signal(signal.SIGKILL)
    said = (begun + writer.stdout.read()).split("\n")[:-1]
    writer.wait()
    return int(said[-1])


def check_kills(path: Path, kills: int) -> None:
    rng = random.Random(SEED)
    print("seed", SEED)
    whole = Tape([CHUNK] * CHUNKS, seed=SEED)
    for kill in range(kills):
        done = kill_after(path, rng.uniform(0, 0.25))
        tables = open_tables(path, PLAIN)
        chunks = tables.tokens // CHUNK
        assert tables.tokens == CHUNK * chunks
        assert done <= chunks <= done + 1, f"kill {kill}"
        tables.close()
        if chunks > CHUNKS - 60:
            path.unlink()
            journal_of(path).unlink()
    tables = open_tables(path, PLAIN)
    chunks = tables.tokens // CHUNK
    more = chunks + 20
    wanted = whole.play(on_host(PLAIN), False)[SHAPE.layers * chunks : SHAPE.layers * more]
    got = play(stored(tables, PLAIN), whole, first=chunks, last=more)
    tables.close()
    for (chunk, tokens), heads in zip(wanted, got, strict=True):
        for head, ids in enumerate(tokens):
            np.testing.assert_array_equal(heads[head][0], whole.k[chunk.layer][head, ids])
            np.testing.assert_array_equal(heads[head][1], whole.v[chunk.layer][head, ids])


def test_kills(tmp_path: Path) -> None:
    check_kills(tmp_path / "kv", 3)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    check_kills(tmp_path / "kv", 50)
