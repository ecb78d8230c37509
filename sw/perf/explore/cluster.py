"""Workers by Dask: an embedded cluster of processes, or one that a scheduler's address names."""

import asyncio
import logging
import queue
import re
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.sw.evaluation.store import source_digest
from vrex.sw.perf.explore.design import Design
from vrex.sw.perf.explore.evaluate import Row, evaluate_all

if TYPE_CHECKING:
    from distributed import Future

SOURCES = ("vrex.sw.perf",)
"""Packages whose code decides what a point's figures are."""
ADDRESS = r"(tcp|tls)://[^/\s]+:\d{1,5}"
BATCH = 32
"""Points of one task: some 0.15 s of work, beside which a task's own milliseconds don't count."""
AHEAD = 3
"""Tasks of each worker that are in flight."""
CONNECT_S = 10
"""How long a scheduler, and its first worker, may take to answer."""
PATIENCE_S = 30
"""How long a sweep goes on without any worker; a nanny needs seconds to start a dead one anew."""


QUIET: dict[str, Any] = {
    "threads_per_worker": 1,
    "memory_limit": None,
    "dashboard_address": "127.0.0.1:0",
    "silence_logs": logging.CRITICAL,
}
"""Of an embedded cluster: one thread a worker, none that ends as others fill the memory. The scheduler
always has a web server: on any free port, so that two sweeps at once do not meet."""


class Workers:
    """Workers that take points."""

    def __init__(self, client: Any, name: str) -> None:
        """See `embedded` and `remote`.

        Args:
            client: a connected `distributed.Client`; its methods are typed as if it were asynchronous.
            name: for messages.
        """
        self._client, self._name = client, name
        self._first = set(client.nthreads())
        self._seen = time.monotonic()

    def lost(self) -> int:
        """Workers that were there at first and are no more."""
        return len(self._first - set(self._client.nthreads()))

    def run(self, designs: Sequence[Design], finished: Callable[[list[Row]], None]) -> None:
        """Evaluates all points; hands their rows over as they come, a task's at a time.

        Raises:
            UserError: no worker is left, some points end every worker that takes them, or the scheduler is
                lost.
        """
        waiting = deque(designs[start : start + BATCH] for start in range(0, len(designs), BATCH))
        answers: queue.Queue[Future] = queue.Queue()
        # Futures that nobody holds are forgotten by the scheduler.
        held: set[Future] = set()

        def submit() -> None:
            future = self._client.submit(evaluate_all, waiting.popleft(), pure=False)
            held.add(future)
            future.add_done_callback(answers.put)

        for _ in range(min(len(waiting), AHEAD * max(1, len(self._first)))):
            submit()
        while held:
            try:
                future = answers.get(timeout=1)
            except queue.Empty:
                self._check()
                continue
            self._seen = time.monotonic()
            held.discard(future)
            rows = self._rows(future)
            if waiting:
                submit()
            finished(rows)

    def _rows(self, future: "Future") -> list[Row]:
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        try:
            rows: list[Row] = future.result(timeout=CONNECT_S)
        except KilledWorker as error:
            raise UserError(
                f"{self._name}: workers died again and again on the same points; look for what ends them "
                "(memory?); finished points are kept"
            ) from error
        except (FutureCancelledError, OSError, TimeoutError) as error:
            raise self._gone() from error
        return rows

    def _check(self) -> None:
        """Nothing has come for a second: is there still somebody who works?"""
        if self._client.status != "running":
            raise self._gone()
        try:
            workers = self._client.nthreads()
        except (OSError, TimeoutError) as error:
            raise self._gone() from error
        now = time.monotonic()
        if workers:
            self._seen = now
        elif now - self._seen > PATIENCE_S:
            raise UserError(
                f"{self._name}: no worker is left; start one, then the same command goes on from the points "
                "that are finished"
            )

    def _gone(self) -> UserError:
        return UserError(
            f"{self._name}: the scheduler no longer answers; start it, then the same command goes on from "
            "the points that are finished"
        )


def need_dask() -> None:
    """Sees that what the extra `explore` brings is there.

    Raises:
        UserError: it is not.
    """
    try:
        import distributed  # noqa: F401
        import pyarrow  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        raise UserError(f"vrex explore needs the package {error.name}; install vrex[explore]") from error


@contextmanager
def embedded(count: int) -> Iterator[Workers]:
    """Processes of this machine, of one thread each; they end with the context, or with this process."""
    import dask.config
    from distributed import Client, LocalCluster

    _silence()
    # Ctrl-C reaches all processes of a terminal; this one ends the workers. Nobody reads Dask's profiles and
    # monitors, which would look at every process a hundred times a second.
    settings = {
        "distributed.worker.profile.enabled": False,
        "distributed.admin.system-monitor.interval": "10s",
        "distributed.admin.tick.interval": "1s",
        "distributed.comm.timeouts.connect": f"{CONNECT_S}s",
        "logging.distributed": "critical",
        "distributed.worker.preload": ["import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"],
    }
    with (
        dask.config.set(settings),
        TemporaryDirectory(prefix="vrex-") as folder,
        LocalCluster(n_workers=count, processes=True, local_directory=folder, **QUIET) as cluster,
        Client(cluster) as client,
    ):
        yield Workers(client, "the embedded cluster")


@contextmanager
def remote(address: str) -> Iterator[Workers]:
    """The workers of a scheduler, whatever else it does.

    Args:
        address: as in `tcp://127.0.0.1:8786`.

    Raises:
        UserError: it can't be reached, has no worker, or a worker has another vrex.
    """
    import dask.config
    from distributed import Client

    name = f"--scheduler {address}"
    if not re.fullmatch(ADDRESS, address):
        raise UserError(f"{name}: is no address; write tcp://HOST:PORT, as `dask scheduler` prints it")
    _silence()
    with dask.config.set({"distributed.comm.timeouts.connect": f"{CONNECT_S}s"}):
        # A client that finds none stays behind with its threads and messages, so ask before there is one.
        try:
            asyncio.run(asyncio.wait_for(_identity(address), CONNECT_S))
        except Exception as error:  # whatever comes of what somebody else's server says
            raise UserError(
                f"{name}: no scheduler answers; start `dask scheduler` there, or leave the option out"
            ) from error
        with Client(address, timeout=CONNECT_S, set_as_default=False) as client:
            _check_workers(client, name)
            yield Workers(client, name)


def _silence() -> None:
    """Keeps Dask's own words about what died from standing among ours."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)


async def _identity(address: str) -> None:
    """Returns when a scheduler has said who it is."""
    from distributed.core import rpc

    async with rpc(address) as scheduler:
        found: Any = await scheduler.identity()
        assert found["type"] == "Scheduler"


def installed() -> tuple[str, str]:
    """Version and source of the vrex of this process."""
    return version("vrex"), source_digest(SOURCES)


def _check_workers(client: Any, name: str) -> None:
    end = time.monotonic() + CONNECT_S
    while not client.nthreads():
        if time.monotonic() > end:
            raise UserError(f"{name}: has no worker; start `dask worker` for it")
        time.sleep(0.1)
    try:
        found = client.run(installed)
    except Exception as error:  # whatever importing vrex raises in a worker
        raise UserError(f"{name}: a worker has no vrex ({error}); install the same one there") from error
    for worker, theirs in found.items():
        if theirs != installed():
            raise UserError(
                f"{name}: worker {worker} has another vrex ({theirs[0]}, other sources); install the same one"
            )
