"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input: the message is one sentence that says what is wrong, where, and what to do.

    The command line prints it after `vrex: error: ` and exits with code 2; no traceback, nothing
    half-written. It starts in lower case, unless with a name, and has no full stop.
    """
