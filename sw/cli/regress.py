"""vrex regress: run the testbenches of the hardware units against the golden model."""

import argparse

from vrex.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``vrex regress``, which the testbenches know best."""
    from vrex.tb import regress

    regress.add_arguments(parser)


def execute(args: argparse.Namespace) -> int:
    """Runs them; the exit code is 1 when a test fails or a case that should occur did not."""
    from vrex.tb import regress

    try:
        return regress.main(args)
    except regress.RegressError as error:
        raise UserError(str(error)) from error
