"""vrex regress: run the testbenches of the hardware units against the golden model."""

import argparse

from vrex.errors import UserError
from vrex.sw.cli.arguments import INPUT_CONFIG_OR_NAME, OUTPUT_FOLDER
from vrex.sw.cli.config_options import add_config_options
from vrex.sw.cli.synth import add_library_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex regress``, which the testbenches know best."""
    from vrex.tb import regress

    add_config_options(
        parser,
        default="all that the testbenches have; edge for --param alone",
        config_type=INPUT_CONFIG_OR_NAME,
        config_metavar="NAME|FILE",
        config_help="one of the testbenches' configurations, such as tiny, edge or lane1 (vrex.tb.configs), "
        "or else your own, a TOML file such as `vrex config` prints",
    )
    regress.add_arguments(parser, OUTPUT_FOLDER)
    add_library_options(parser, "library of --netlist")


def execute(args: argparse.Namespace) -> int:
    """Runs them; the exit code is 1 when a test fails or a case that should occur did not."""
    from vrex.tb import regress

    for path in regress.reports(args.output):
        args.files.add_output(path, f"the file {path.name} of --output", needed=path.parent.exists())
    try:
        return regress.main(args)
    except regress.RegressError as error:
        raise UserError(str(error)) from error
