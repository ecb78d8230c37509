"""Runs the cells that are not done yet, on several processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from vrex.errors import UserError
from vrex.sw.evaluation.cells import Bench, Clip, VideoCell
from vrex.sw.evaluation.store import Store

BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

_bench: Bench


def run_cells(
    cells: Sequence[VideoCell],
    store: Store,
    folder: Path | None,
    calibration: Path,
    jobs: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Runs what the store lacks, video by video, and adds it; cells done before count as done.

    Args:
        cells: all that are wanted.
        store: of finished cells.
        folder: checkpoint, or None for the shipped one.
        calibration: file of the policies' calibration (see `Bench`).
        jobs: processes; 1 works in this one.
        progress: gets the number of cells done and of all.

    Raises:
        UserError: a cell can't be run, or a process died.
    """
    missing = [cell for cell in cells if cell.key() not in store]
    done = len(cells) - len(missing)
    progress(done, len(cells))
    if not missing:
        return
    if jobs == 1:
        bench = Bench(folder, calibration)
        for cell in missing:
            store.add(cell.key(), bench.run(cell))
            done += 1
            progress(done, len(cells))
        return
    # What several cells need is made first, or two processes would make it at the same time.
    Bench(folder, calibration).prepare([cell.point for cell in missing])
    for name in BLAS:
        os.environ[name] = "1"
    executor = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_start, initargs=(folder, calibration)
    )
    try:
        clips = list(dict.fromkeys(cell.clip for cell in missing))
        _finish([executor.submit(_embed, clip) for clip in clips])
        futures = {executor.submit(_run, cell): cell for cell in missing}
        for future in as_completed(futures):
            store.add(futures[future].key(), future.result())
            done += 1
            progress(done, len(cells))
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the evaluation was killed, perhaps for want of memory; finished cells are kept; "
            "give the same command again with --jobs 1"
        ) from error
    finally:
        executor.shutdown(cancel_futures=True)


def _finish(futures: list[Future[None]]) -> None:
    for future in futures:
        future.result()


def _start(folder: Path | None, calibration: Path) -> None:
    """Readies a process, which dies quietly at Ctrl-C, unless the whole command ignores that."""
    global _bench
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _bench = Bench(folder, calibration)


def _embed(clip: Clip) -> None:
    _bench.embed(clip)


def _run(cell: VideoCell) -> dict[str, Any]:
    return _bench.run(cell)
