"""Errors that are the user's to mend: one message with the field, the value and the way out."""


class InputError(ValueError):
    """A file, setting or prompt that cannot be used. The command line prints its message and exits with 2."""
