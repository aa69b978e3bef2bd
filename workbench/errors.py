"""The one exception that means "what the user gave is wrong"."""


class InputError(ValueError):
    """Bad input from outside: one line that says what is wrong, where, and what would be right.

    The command line prints it and exits with code 2; every other exception is a bug and keeps its
    traceback.
    """
