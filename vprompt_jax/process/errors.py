"""Exceptions that are not defects: a user's mistakes, and requests to stop."""


class UserError(Exception):
    """A mistake that the user can mend. The message names the thing and the way out.

    Command-line programs print the message without a traceback and exit with a non-zero status.
    """


class InUse(UserError):
    """Another process works in a folder."""


class Diverged(UserError):
    """The steps of a run were not finite."""


class Pruned(Exception):
    """A trial of a search was ended early, since others do better; its run is not finished."""


class Interrupted(Exception):
    """A run was asked to stop (SIGTERM) and has saved its state.

    Command-line programs print the message and exit with status 143, as a shell reports SIGTERM.
    """
