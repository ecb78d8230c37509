"""How the scripts end that record figures anew."""

import sys
from collections.abc import Callable
from typing import NoReturn

from vrex.errors import UserError


def run(record: Callable[[], str]) -> NoReturn:
    """Ends the process: with 0 when all is recorded, with 2 on a mistake of the user, as the command line.

    Args:
        record: writes the files; returns a line on them for stdout.
    """
    try:
        print(record())
    except UserError as error:
        print(f"vrex: error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(0)
