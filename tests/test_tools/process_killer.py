"""A module that a config imports: it ends the process with SIGKILL, at each stage of a list once.

The variable ``KILL_AT`` names a file with the stages, a line each: a method of mmengine's hooks, and the epoch that it
is called in. The first line is taken out when it has been reached.
"""
import os
import signal
from pathlib import Path

from mmengine.runner import Runner

_call_hook = Runner.call_hook


def call_hook(self: Runner, fn_name: str, **arguments) -> None:
    _call_hook(self, fn_name, **arguments)
    stages = Path(os.environ['KILL_AT'])
    first, *others = stages.read_text().splitlines() or ['']
    if first == f'{fn_name} {getattr(self._train_loop, "epoch", 0)}':
        stages.write_text('\n'.join(others))
        os.kill(os.getpid(), signal.SIGKILL)


Runner.call_hook = call_hook
