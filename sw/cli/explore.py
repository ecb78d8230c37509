"""vrex explore: sweep hardware, algorithm and workload with the system simulator, and draw Pareto fronts."""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import INPUT_FILE, OUTPUT_HTML, OUTPUT_JSON, OUTPUT_PARQUET, at_least
from vrex.sw.cli.common import saying_what_is_kept
from vrex.sw.cli.paths import CommandFiles

if TYPE_CHECKING:
    from vrex.sw.evaluation.store import Store
    from vrex.sw.perf.explore.design import Design
    from vrex.sw.perf.explore.evaluate import Row
    from vrex.sw.perf.explore.spec import Spec

OBJECTIVES = "fps,joule_per_frame,area_mm2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex explore``."""
    parser.add_argument(
        "spec",
        nargs="?",
        type=INPUT_FILE,
        metavar="SPEC.toml",
        help="what is swept (default: what --print-spec prints)",
    )
    parser.add_argument(
        "--print-spec", action="store_true", help="print the default spec, to copy and change"
    )
    parser.add_argument(
        "--objectives",
        default=OBJECTIVES,
        metavar="NAME,NAME",
        help="what Pareto fronts are made of, at least two (default: %(default)s)",
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=at_least(1), metavar="N", help="processes of this machine (default: all cores)"
    )
    where.add_argument(
        "--scheduler", metavar="tcp://HOST:PORT", help="a Dask scheduler whose workers have the same vrex"
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json",
        type=OUTPUT_JSON,
        metavar="OUT",
        help="where all points go; finished ones are kept beside it, and the same command goes on from them; "
        "- is stdout",
    )
    output.add_argument("--parquet", type=OUTPUT_PARQUET, metavar="OUT", help="where they go as a table")
    output.add_argument(
        "--html", type=OUTPUT_HTML, metavar="OUT", help="where a page of fronts goes that needs no network"
    )


def execute(args: argparse.Namespace) -> int:
    """Computes what the store lacks; writes points, table and page, and prints the fronts.

    Raises:
        UserError: the spec breaks a rule, an objective is unknown, a package is missing, or no worker is
            left.
    """
    from vrex.sw.perf.explore import cluster
    from vrex.sw.perf.explore.spec import DEFAULT, load_spec

    if args.print_spec:
        if any((args.spec, args.json, args.parquet, args.html)):
            raise UserError("--print-spec goes alone; leave the other options out")
        print(DEFAULT.read_text(encoding="utf-8"), end="", file=args.files.out)
        return 0
    if args.json is None:
        raise UserError("--json is missing; say where the points go")
    objectives = _objectives(args.objectives)
    spec = load_spec(args.spec or DEFAULT)
    for path in spec.files():
        args.files.add_input(path, f"a file of {spec.path}")
    cluster.need_dask()
    with _points_beside(args.json, args.files) as (path, lasting):
        rows = _rows(args, spec, path, lasting)
    _write(args, spec, rows, objectives)
    return 0


def _objectives(words: str) -> list[str]:
    from vrex.sw.perf.explore.evaluate import OBJECTIVES as KNOWN

    names = list(dict.fromkeys(words.split(",")))
    for name in names:
        if name not in KNOWN:
            raise UserError(f"--objectives: {name!r} is unknown; known are {', '.join(KNOWN)}")
    if len(names) < 2:
        raise UserError("--objectives: a front needs at least two; add one")
    return names


@contextmanager
def _points_beside(results: Path, files: CommandFiles) -> Iterator[tuple[Path, bool]]:
    """Where finished points are kept, and whether they outlive the command: see `kept_beside`."""
    from tempfile import TemporaryDirectory

    with ExitStack() as stack:
        lasting = is_plain(results)
        base = results if lasting else Path(stack.enter_context(TemporaryDirectory(prefix="vrex-")), "out")
        path = base.with_name(base.stem + ".points.jsonl")
        files.add_output(path, "the points", kept=True)
        yield path, lasting


def _rows(args: argparse.Namespace, spec: "Spec", path: Path, lasting: bool) -> "list[Row]":
    """Rows of all points, in the spec's order."""
    from vrex.sw.evaluation.store import Kind, open_lines
    from vrex.sw.perf.explore.cluster import SOURCES
    from vrex.sw.perf.explore.spec import digest

    designs = spec.designs()
    kind = Kind("points of a sweep", "spec")
    with open_lines(path, kind, digest(designs), SOURCES, ("id",)) as store:
        missing = [design for design in designs if design.key() not in store]
        if len(missing) < len(designs):
            done = len(designs) - len(missing)
            print(
                f"vrex: {done} of {len(designs)} points are in {path}; {len(missing)} are left",
                file=sys.stderr,
            )
        if missing:
            with saying_what_is_kept(designs, store, lasting, "points"):
                _sweep(args, missing, len(designs), store)
        return [store[design.key()] for design in designs]


def _sweep(args: argparse.Namespace, missing: "list[Design]", total: int, store: "Store") -> None:
    """Computes points behind a progress bar; each task's rows are on disk before the next one's are taken."""
    from tqdm import tqdm

    from vrex.sw.perf.explore import cluster

    count = args.workers or len(os.sched_getaffinity(0))
    pool = cluster.embedded(count) if args.scheduler is None else cluster.remote(args.scheduler)
    bar = tqdm(total=total, initial=total - len(missing), unit="point", disable=None)
    with bar, pool as workers:

        def finished(rows: "list[Row]") -> None:
            for row in rows:
                store.add({"id": row["id"]}, row)
            bar.update(len(rows))

        workers.run(missing, finished)
        lost = workers.lost()
    if lost:
        who, whose = ("a worker", "its") if lost == 1 else (f"{lost} workers", "their")
        print(f"vrex: {who} died on the way; others computed {whose} points", file=sys.stderr)


def _write(args: argparse.Namespace, spec: "Spec", rows: "list[Row]", objectives: list[str]) -> None:
    from vrex.sw.perf.explore import page, table
    from vrex.sw.perf.explore.pareto import fronts

    files: CommandFiles = args.files
    kept = fronts(rows, objectives)
    for row, mine in zip(rows, kept, strict=True):
        row["front"] = mine
    result: dict[str, Any] = {
        **_provenance(),
        "spec": str(spec.path) if args.spec else None,
        "objectives": objectives,
        "rows": rows,
    }
    written = files.write_json(args.json, result, indent=1)
    print(table.text(rows, objectives), file=files.out)
    if args.parquet is not None:
        files.write(args.parquet, table.parquet(rows))
    if written:
        print(f"points in {args.json}", file=files.out)

    def make() -> bytes:
        return page.page(result).encode()

    if args.html is not None and files.try_write(args.html, make, f"the page {args.html}"):
        print(f"page in {args.html}", file=files.out)


def _provenance() -> dict[str, Any]:
    from importlib.metadata import version

    from vrex.sw.perf.simulation.calibration import load

    return {"vrex": version("vrex"), "rtl_commit": load()["rtl_commit"]}
