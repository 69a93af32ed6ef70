"""The one kind of error that a user can cause."""


class UserError(ValueError):
    """Bad input. The message is one line: where, what was expected, what was found.

    A stage or command prints it on stderr and exits with code 2, without a traceback.
    """
