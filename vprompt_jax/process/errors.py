"""Exceptions that are not defects: a user's mistake, and a request to stop."""


class UserError(Exception):
    """A mistake that the user can mend. The message names the thing and the way out.

    Command-line programs print the message without a traceback and exit with a non-zero status.
    """


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM) and has saved its state.

    Command-line programs print the message and exit with status 143, as a shell reports SIGTERM.
    """
