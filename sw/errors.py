"""The one exception that a user's mistake raises."""


class UserError(Exception):
    """Bad input: the message is one sentence that says what is wrong, where, and what to do.

    The command line prints it and exits with code 2; no traceback, nothing half-written.
    """
