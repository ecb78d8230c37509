"""vrex perf: the paper's latency and energy figures, computed from data sheets and RTL counters."""

import argparse
from typing import TYPE_CHECKING, Any

from vrex.errors import UserError
from vrex.sw.cli.arguments import (
    INPUT_CONFIG_OR_NAME,
    INPUT_FILE,
    OUTPUT_FOLDER,
    OUTPUT_HTML,
    OUTPUT_JSON,
    at_least,
)
from vrex.sw.cli.paths import CommandFiles

if TYPE_CHECKING:
    from vrex.sw.perf.report.metrics import Context

POINT, MEMORY, SYSTEM = "point", "memory", "system"
DEFAULTS: dict[str, Any] = {
    "system": "v-rex8",
    "method": "vrex",
    "model": "llama-3-8b",
    "vision": "siglip-l-384",
    "kv": 40000,
    "batch": 1,
    "recorded": None,
}
"""Of the options that belong to `point`; `--system` belongs to `system` too."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex perf``."""
    parser.add_argument(
        "figures",
        nargs="*",
        metavar="FIGURE",
        help="4a to 4c, 13a, 13b, 14 to 18, table1, table3, contradictions, beyond, best, energy, gemm (all "
        "these by default); memory: bandwidths of DRAM and SSD with their timing; point: a step of --system; "
        "system: print the file of --system, to copy and change",
    )
    parser.add_argument("--json", type=OUTPUT_JSON, metavar="OUT", help="where the rows go; - is stdout")
    parser.add_argument(
        "--html", type=OUTPUT_HTML, metavar="OUT", help="where a page goes that needs no network"
    )
    parser.add_argument("--png", type=OUTPUT_FOLDER, metavar="DIR", help="folder for the plots")
    parser.add_argument(
        "--fit",
        action="store_true",
        help="fit the selected share of V-Rex to its frame at 40 K; the output says so",
    )
    parser.add_argument(
        "--traces",
        type=OUTPUT_FOLDER,
        metavar="DIR",
        help="of memory: folder for traces for DRAMSim3, Ramulator 2, MQSim",
    )
    point = parser.add_argument_group("point and system")
    point.add_argument(
        "--system",
        type=INPUT_CONFIG_OR_NAME,
        metavar="NAME|FILE.toml",
        help=f"default: {DEFAULTS['system']}",
    )
    point.add_argument(
        "--method",
        type=INPUT_CONFIG_OR_NAME,
        metavar="NAME|FILE.toml",
        help=f"default: {DEFAULTS['method']}",
    )
    point.add_argument(
        "--model",
        type=INPUT_CONFIG_OR_NAME,
        metavar="NAME|FILE.toml",
        help=f"default: {DEFAULTS['model']}",
    )
    point.add_argument(
        "--vision",
        type=INPUT_CONFIG_OR_NAME,
        metavar="NAME|FILE.toml",
        help=f"default: {DEFAULTS['vision']}",
    )
    point.add_argument("--kv", type=at_least(0), metavar="N", help=f"past tokens (default: {DEFAULTS['kv']})")
    point.add_argument(
        "--batch", type=at_least(1), metavar="N", help=f"sequences (default: {DEFAULTS['batch']})"
    )
    point.add_argument(
        "--recorded", type=INPUT_FILE, metavar="RUN.json", help="ratios and clusters of a run of that model"
    )


def execute(args: argparse.Namespace) -> int:
    """Computes, prints and writes what was asked for.

    Raises:
        UserError: an unknown figure, system, method or model, or a file that breaks a rule.
    """
    for option, folder in (("--png", args.png), ("--traces", args.traces)):
        if folder is not None and not folder.is_dir():
            raise UserError(f"{option} {folder}: is no folder; make it first")
    chosen = args.figures[0] if args.figures in ([POINT], [SYSTEM]) else None
    _check_options(args, chosen)
    for name, value in DEFAULTS.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return {POINT: _point, SYSTEM: _system}.get(chosen or "", _figures)(args)


def _check_options(args: argparse.Namespace, chosen: str | None) -> None:
    """Refuses options that what was chosen would ignore."""
    own = {POINT: set(DEFAULTS) | {"json"}, SYSTEM: {"system"}}.get(
        chosen or "", {"json", "html", "png", "fit", "traces"}
    )
    for name in (*DEFAULTS, "json", "html", "png", "fit", "traces"):
        given = getattr(args, name)
        if name not in own and given is not None and given is not False:
            belongs = "point" if name in DEFAULTS else "figures"
            raise UserError(f"--{name} belongs to {belongs}; leave it out, or see `vrex perf --help`")


def _figures(args: argparse.Namespace) -> int:
    from vrex.sw.perf.memory import table
    from vrex.sw.perf.report import figures, fit, page
    from vrex.sw.perf.report.metrics import Context

    names = figures.chosen(args.figures)
    if args.traces is not None and MEMORY not in names:
        raise UserError("--traces belongs to memory; write `vrex perf memory --traces DIR`")
    context, fitted = fit.fitted() if args.fit else (Context(), {})
    rows = figures.rows(context, names)
    memory = table.measure() if MEMORY in names else None
    shown = table.text(memory) if memory else ""
    files: CommandFiles = args.files
    result = {**_provenance(), "fitted": fitted, "rows": rows} | ({"memory": memory} if memory else {})
    if args.json:
        files.write_json(args.json, result, indent=1)
    parts = ([page.text(rows, fitted)] if rows else []) + ([shown] if shown else [])
    print("\n\n".join(parts), file=files.out)
    plots = _plots(context, rows) if args.png or args.html else {}
    if args.html:
        said = f"vrex {result['vrex']}; cycles of the RTL of commit {result['rtl_commit']}."
        files.write(args.html, page.page(rows, plots, fitted, shown, said).encode())
    outputs = [(args.png / f"fig-{name}.png", picture) for name, picture in plots.items()] if args.png else []
    if args.traces:
        outputs += table.trace_folder_files(args.traces)
    for path, _ in outputs:
        files.add_output(path, str(path))
    for path, content in outputs:
        files.write(path, content)
    return 0


def _provenance() -> dict[str, Any]:
    from importlib.metadata import version

    from vrex.sw.perf.simulation.calibration import load

    return {"vrex": version("vrex"), "rtl_commit": load()["rtl_commit"]}


def _plots(context: "Context", rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """PNG of every figure that has something to draw."""
    from vrex.sw.perf.report.page import heading
    from vrex.sw.perf.report.plots import plot

    found = {}
    for figure in dict.fromkeys(row["figure"] for row in rows):
        if figure != "contradictions":
            picture = plot([row for row in rows if row["figure"] == figure], context, heading(figure))
            if picture:
                found[figure] = picture
    return found


def _system(args: argparse.Namespace) -> int:
    """Prints a system's file, once it has been found right."""
    from vrex.sw.perf.description.sections import find
    from vrex.sw.perf.description.system import load_system

    load_system(args.system)
    print(find("systems", args.system, "system").read_text(encoding="utf-8"), end="")
    return 0


def _point(args: argparse.Namespace) -> int:
    """One step of a frame and one of a token: time by kind, energy by part."""
    from vrex.sw.perf.description.method import load_method
    from vrex.sw.perf.description.system import load_system
    from vrex.sw.perf.description.workload import frame, load_model, load_vision, token
    from vrex.sw.perf.report.verdict import joules, parts
    from vrex.sw.perf.simulation.machine import Machine
    from vrex.sw.perf.simulation.recorded import read
    from vrex.sw.perf.simulation.step import OutOfMemoryError, simulate

    machine, method = Machine(load_system(args.system)), load_method(args.method)
    model, vision = load_model(args.model), load_vision(args.vision)
    ratios = None
    if args.recorded:
        ratios, method = read(args.recorded, model, args.model, method)
    result: dict[str, Any] = _provenance()
    for name, work in (
        ("frame", frame(model, vision, args.kv, args.batch)),
        ("token", token(model, args.kv, args.batch)),
    ):
        try:
            step = simulate(machine, method, work, ratios)
        except OutOfMemoryError as error:
            raise UserError(
                f"{args.method} on {args.system} with {args.kv} tokens does not fit: it {error}"
            ) from error
        print(f"{name}: {parts(step)}; {joules(step)}", file=args.files.out)
        result[name] = {
            "seconds": step.seconds,
            "breakdown": step.breakdown,
            "joules": step.joules,
            "energy": step.energy,
            "dram_bytes": step.dram_bytes,
            "link_bytes": step.link_bytes,
        }
    if args.json:
        args.files.write_json(args.json, result, indent=1)
    return 0
