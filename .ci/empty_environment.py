"""An empty environment with the wheel of this machine, as a newcomer makes one."""
from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
DIST = _ROOT / 'dist'
_CONSTRAINTS = _ROOT / 'requirements/constraints.txt'


class EmptyEnvironment:
    """A virtual environment with PyTorch, and whatever of ``dist`` is installed.

    Args:
        folder: Where it is made.
        pip_arguments: For pip, such as ``--extra-index-url`` with an index of PyTorch's CPU builds.

    Attributes:
        python: Its interpreter.
        command: ``mmmamba``, once that is installed.
        wheel: The wheel of this machine.
    """

    def __init__(self, folder: Path, pip_arguments: Sequence[str]) -> None:
        self.wheel = next(DIST.glob(f'*{platform.machine()}.whl'), None)
        if self.wheel is None:
            sys.exit('error: dist has no wheel of this machine; make wheels builds it')
        self._folder = folder.parent
        self.python, self.command = (str(folder / 'bin' / name) for name in ('python', 'mmmamba'))
        self._pip = [self.python, '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', *pip_arguments]
        torch = next(line for line in _CONSTRAINTS.read_text().splitlines() if line.startswith('torch=='))
        run([sys.executable, '-m', 'venv', str(folder)], folder.parent)
        self.install(torch)

    def install_wheel(self, extras: str) -> None:
        """Installs the wheel of this machine and what its extras ask for, at the tested versions."""
        self.install('-c', str(_CONSTRAINTS), f'mmmamba[{extras}] @ {self.wheel.as_uri()}')

    def install(self, *arguments: str) -> None:
        """Calls ``pip install``."""
        run([*self._pip, *arguments], self._folder)


def run(command: Sequence[str], folder: Path, **variables: str) -> str:
    """Runs a command in a folder and returns what it printed; where it fails, prints that and ends.

    Args:
        command: What to run.
        folder: Where.
        variables: Of its environment, in addition to this process's without those of Python.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith('PYTHON')}
    done = subprocess.run(command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'{done.stdout}{done.stderr}error: failed: {" ".join(command)}')
    return done.stdout.strip()
