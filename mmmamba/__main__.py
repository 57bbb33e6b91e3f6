"""The command ``mmmamba``: ``mmmamba train mamba-yolo_t --data FOLDER``, or ``python -m mmmamba train …``."""
from __future__ import annotations

import sys
from importlib import import_module

from mmmamba import cli
from mmmamba.commands import COMMANDS, module_of
from mmmamba.errors import did_you_mean
from mmmamba.version import __version__

_BAD_CALL = 2


def main() -> None:
    """Runs the command that the first argument names, with the others as its arguments."""
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print(_help())
    elif name in ('-V', '--version'):
        print(f'mmmamba {__version__}')
    elif name in COMMANDS:
        sys.argv = [f'mmmamba {name}', *sys.argv[2:]]
        cli.run(lambda: import_module(module_of(name)).main())  # without mmdet, the import fails
    else:
        print(f'error: mmmamba has no command {name}{did_you_mean(name, COMMANDS, 1)} ({", ".join(COMMANDS)})',
              file=sys.stderr)
        sys.exit(_BAD_CALL)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = '\n'.join(f'  {name:{width}}  {what}' for name, what in COMMANDS.items())
    return f"""usage: mmmamba COMMAND ...

Mamba YOLO and other state-space detectors for MMDetection.

{rows}

mmmamba COMMAND --help shows its options. A config is a file, or the name of one of ours: mamba-yolo_t"""


if __name__ == '__main__':
    main()
