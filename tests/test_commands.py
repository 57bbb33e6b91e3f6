"""The command ``mmmamba``: it finds the command, passes the arguments on, and says what it does not know."""
from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from mmmamba import __main__ as program
from mmmamba import cli
from mmmamba.commands import COMMANDS, module_of
from mmmamba.version import __version__


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/mmmamba', *arguments])
    try:
        program.main()
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize('name', COMMANDS)
def test_every_command_has_help_under_its_name(name, monkeypatch, capsys):
    assert call(monkeypatch, name, '--help') == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f'usage: mmmamba {name} ')
    assert import_module(module_of(name)).__doc__.splitlines()[0] in printed


def test_help_lists_every_command(monkeypatch, capsys):
    assert call(monkeypatch) == 0
    listed = capsys.readouterr().out
    assert all(f'  {name} ' in listed and what in listed for name, what in COMMANDS.items())
    assert call(monkeypatch, '--version') == 0
    assert capsys.readouterr().out == f'mmmamba {__version__}\n'


def test_an_unknown_command_is_one_line(monkeypatch, capsys):
    assert call(monkeypatch, 'trian') == 2
    error = capsys.readouterr().err
    assert error.startswith('error: mmmamba has no command trian; did you mean train?') and error.count('\n') == 1


def test_bad_input_of_a_command_is_one_line(monkeypatch, capsys):
    assert call(monkeypatch, 'train', 'nothing.py') == 2
    assert capsys.readouterr().err == 'error: no such file: nothing.py\n'


INFO_ALONE = """
import sys

class Blind:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        blind = name.split('.')[0] in ('mmcv', 'mmdet', 'mmengine')
        return None if blind else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Blind, sys.meta_path)
from mmmamba.__main__ import main
main()
"""


def test_without_mmdet_the_installation_is_described():
    done = subprocess.run([sys.executable, '-c', INFO_ALONE, 'info'], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f'mmmamba {__version__}, Python ') and 'ss2d_scan' in done.stdout


def test_without_mmdet_a_command_names_what_to_install(monkeypatch, capsys):
    def import_module(name: str) -> None:
        raise ModuleNotFoundError("No module named 'mmdet'", name='mmdet')

    monkeypatch.setattr(program, 'import_module', import_module)
    monkeypatch.setattr(cli.importlib.util, 'find_spec', lambda name: None)
    assert call(monkeypatch, 'train') == 2
    assert capsys.readouterr().err == 'error: the package mmdet is missing: pip install mmmamba[lite]\n'
