"""What users are told: exceptions for a mistake in what they gave us, how messages list names, and who speaks."""
from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

STOP_SIGNALS = tuple(getattr(signal, name) for name in ('SIGINT', 'SIGTERM', 'SIGUSR1') if hasattr(signal, name))
"""Signals that ask for an orderly end, which our tools say in a line and by the status 128 + number."""


class InputError(ValueError):
    """Bad input (a file, an annotation, an argument) that a user can mend; its message is one clear line.

    The command line tools print that line and exit with status 2; a library caller gets an ordinary ``ValueError``.
    """


class PartialResultError(InputError):
    """Some of the inputs could not be used, and the others are done; the command line tools exit with status 3."""


def first_names(names: Sequence[object], limit: int = 3) -> str:
    """Returns the first of some names, for a message, and … if there are more."""
    return ', '.join([*map(str, names[:limit]), *('…' for _ in names[limit:limit + 1])])


def did_you_mean(name: str, known: Iterable[str], most: int = 3, otherwise: str = '') -> str:
    """Returns the end of a message about an unknown name: ``'; did you mean a or b?'``, or ``otherwise``.

    Args:
        name: The unknown one.
        known: Those that there are.
        most: So many close ones are named.
        otherwise: What is said if none is close.
    """
    close = get_close_matches(name, list(known), most)
    return f'; did you mean {" or ".join(close)}?' if close else otherwise


def process_rank() -> int:
    """Returns the number of this process among those that a launcher (torchrun, mpirun, Slurm) has started.

    The first, 0, speaks for all of them; so does a process that was started alone.
    """
    names = ('RANK', 'OMPI_COMM_WORLD_RANK', 'SLURM_PROCID')  # of mpirun in a job of Slurm, the second counts
    return int(next((os.environ[name] for name in names if os.environ.get(name)), 0))
