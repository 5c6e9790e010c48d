"""The one exception that stands for a user's mistake."""


class UserError(Exception):
    """A mistake the user can mend: the message names the thing and the way out.

    Command-line programs print the message without a traceback and exit with a non-zero status.
    """
