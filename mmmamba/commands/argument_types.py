"""What argparse makes of the words of a command line; a word of another kind is refused in one line."""
from __future__ import annotations

from argparse import ArgumentTypeError
from contextlib import suppress


def whole(text: str) -> int:
    """Returns a number from 1."""
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f'must be a whole number from 1, not {text!r}')
    return int(text)


def seed(text: str) -> int:
    """Returns a seed, from 0 to 2**32 - 1."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise ArgumentTypeError(f'must be a whole number from 0 to 2**32 - 1, not {text!r}')
    return int(text)


def names(text: str) -> list[str]:
    """Returns names, which commas separate."""
    found = [name.strip() for name in text.split(',') if name.strip()]
    if not found:
        raise ArgumentTypeError('must be names, with commas between them')
    return found


def score(text: str) -> float:
    """Returns a score, from 0 to 1."""
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise ArgumentTypeError(f'must be a score from 0 to 1, not {text!r}')
