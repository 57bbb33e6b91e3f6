"""The exceptions for a mistake in what the user gave us, and how their messages list names."""
from __future__ import annotations

from collections.abc import Sequence


class InputError(ValueError):
    """Bad input (a file, an annotation, an argument) that a user can mend; its message is one clear line.

    The command line tools print that line and exit with status 2; a library caller gets an ordinary ``ValueError``.
    """


class PartialResultError(InputError):
    """Some of the inputs could not be used, and the others are done; the command line tools exit with status 3."""


def first_names(names: Sequence[object], limit: int = 3) -> str:
    """Returns the first of some names, for a message, and … if there are more."""
    return ', '.join([*map(str, names[:limit]), *('…' for _ in names[limit:limit + 1])])
