"""The one error for what a user gave that cannot be used."""


class InputError(ValueError):
    """A file, a value or a setting that cannot be used as given.

    The message is one or two plain sentences: it names the file or the key, the
    value found, and what would be right. Commands print it without a traceback and
    exit with status 1.
    """
