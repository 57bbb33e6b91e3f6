"""Starts the processes of a run as torchrun does, with its options, and says in one line why they ended.

    python tools/dist_run.py [options of torchrun] PROGRAM [options of the program]

The exit status is that of the process which failed first, or 128 and the number of the signal that ended it.
"""
from __future__ import annotations

import logging
import sys

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from mmmamba.cli import describe
from mmmamba.errors import STOP_SIGNALS


def main() -> None:
    logging.disable()  # torchrun's log says what follows in many lines
    try:
        torchrun()
    except KeyboardInterrupt:
        sys.exit(130)
    except SignalException as error:
        sys.exit(128 + error.sigval)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        status = failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
        if failure.exitcode < 0:
            reason = ': was the memory full?' if failure.signal_name() == 'SIGKILL' else ''
            print(f'error: process {rank} of this run was ended by {failure.signal_name()}{reason}', file=sys.stderr)
        elif status - 128 not in STOP_SIGNALS:  # else the process has said that somebody stopped it
            print(f'error: process {rank} of this run ended with status {status}; it said why', file=sys.stderr)
        sys.exit(status)
    except DistError as error:
        print(f'error: {describe(error) or error}', file=sys.stderr)
        sys.exit(1)


if __name__ == '__main__':
    main()
