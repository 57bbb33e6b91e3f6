"""What documents tell readers to type: every command is one that there is, with options that it has.

A block of ``bash`` is checked line by line: the program parses the arguments, a config named in small letters exists,
and ``--cfg-options`` fit into it. WORDS IN CAPITALS are for the reader to fill in. What is no program of this
repository needs one of these lines right above the block::

    <!-- not run: why -->
    <!-- run by: tests/test_x.py -->

Blocks of ``python`` run in ``test_document_python.py``.
"""
from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from importlib import import_module
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from unittest import mock

import pytest
from documents import ROOT, Block, blocks, documents
from mmengine.config import Config

from mmmamba.commands import COMMANDS, module_of
from mmmamba.model_config import merge_options
from mmmamba.package_files import find_config

PLACEHOLDER = re.compile(r'[A-Z]{2,}|\.\.\.|path/to/|…')
EXTRAS = set(re.findall(r"'(\w+)': (?:requirements|\[)", (ROOT / 'setup.py').read_text(encoding='utf-8')))
TARGETS = set(re.search(r'^\.PHONY: (.+)$', (ROOT / 'Makefile').read_text(encoding='utf-8'), re.MULTILINE)[1].split())
HELP = 'mark the block with a line above it: <!-- not run: why --> or <!-- run by: tests/test_x.py -->'


class Parsed(BaseException):
    """Ends a program after it has parsed its arguments."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments


def parse(words: list[str], program: str, **start) -> argparse.Namespace:
    """Starts a program as a user does, up to its parsed arguments."""
    def stopping(method: str) -> AbstractContextManager:
        original = getattr(argparse.ArgumentParser, method)

        def stop(parser: argparse.ArgumentParser, *args, **kwargs) -> None:
            raise Parsed(original(parser, *args, **kwargs))

        return mock.patch.object(argparse.ArgumentParser, method, stop)

    arguments = mock.patch.object(sys, 'argv', [program, *words])
    with stopping('parse_args'), stopping('parse_intermixed_args'), arguments:
        try:
            if 'command' in start:
                import_module(module_of(start['command'])).main()
            elif 'module' in start:
                runpy.run_module(start['module'], run_name='__main__')
            else:
                runpy.run_path(str(ROOT / program), run_name='__main__')
        except Parsed as end:
            return end.arguments
        except SystemExit as end:
            assert not end.code, f'{program} does not take {words}'
    return argparse.Namespace()


def expanded(word: str) -> list[str]:
    """Expands {a,b} and, of paths in the repository, *."""
    parts = re.split(r'\{([^{}]*,[^{}]*)\}', word)
    choices = [part.split(',') if number % 2 else [part] for number, part in enumerate(parts)]
    words = [''.join(choice) for choice in product(*choices)]
    return [found for one in words for found in
            (sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(one)) if '*' in one else [one])]


def check_configs(arguments: argparse.Namespace) -> None:
    """Checks that configs exist, and that --cfg-options fit."""
    named = getattr(arguments, 'config', None) or getattr(arguments, 'configs', None) or []
    for config in named if isinstance(named, list) else [named]:
        name = str(config).partition('=')[0]
        if not PLACEHOLDER.search(name) and not name.startswith('work_dirs/'):
            path = find_config(ROOT / name if (ROOT / name).is_file() else name)
            if getattr(arguments, 'cfg_options', None):
                merge_options(Config.fromfile(path), arguments.cfg_options)


def check(words: list[str]) -> None:
    """Checks a command of our own; raises KeyError for another's."""
    program, rest = words[0], [found for word in words[1:] for found in expanded(word)]
    if program == 'mmmamba':
        name, *rest = rest
        if name in ('--help', '--version'):
            return
        assert name in COMMANDS, f'mmmamba has no command {name}'
        check_configs(parse(rest, f'mmmamba {name}', command=name))
    elif program == 'python' and rest[0] == '-m' and rest[1].startswith(('mmmamba.', 'benchmarks.')):
        assert find_spec(rest[1]), f'there is no module {rest[1]}'
        if rest[2:]:
            parse(rest[2:], rest[1], module=rest[1])
    elif program == 'python' and rest[0].startswith('tools/'):
        check_configs(parse(rest[1:], rest[0]))
    elif program.startswith('tools/') and program.endswith('.sh'):
        assert (ROOT / program).is_file(), program
        launcher, _, tool = Path(program).stem.partition('_')
        if launcher == 'slurm':  # PARTITION JOB_NAME CONFIG, and WORK_DIR or CHECKPOINT
            words = [rest[2], *(['--work-dir'] if tool == 'train' else []), *rest[3:]]
        else:  # CONFIG, CHECKPOINT to test, GPUS
            gpus = 1 if tool == 'train' else 2
            words = [*rest[:gpus], *rest[gpus + 1:]]
        check_configs(parse(words, f'tools/{tool}.py'))
    elif program == 'make':
        assert {word for word in rest if '=' not in word} <= TARGETS, f'make has no target {rest}'
    elif program == 'pytest':
        assert all((ROOT / word).exists() for word in rest if word.startswith('tests')), rest
    elif program == 'pip' and rest[0] == 'install':
        asked = {extra for word in rest for found in re.findall(r'(?:mmmamba|\.)\[([\w,]+)]', word)
                 for extra in found.split(',')}
        assert asked <= EXTRAS, f'{asked - EXTRAS} is no extra of setup.py'
    else:
        raise KeyError(program)


def commands(block: Block, variables: dict[str, str]) -> Iterator[list[str]]:
    """Yields the commands of a block as words, without comments and what is set for them; keeps assignments."""
    for line in block.text.replace('\\\n', ' ').splitlines():
        for name, value in variables.items():
            line = line.replace(f'${name}', value)
        words = shlex.split(line, comments=True)
        assigned = [word for word in words if re.match(r'[A-Z_]+=', word)]
        if words and words == assigned:
            variables.update(word.split('=', 1) for word in words)
        while words and re.match(r'[A-Z_]+=', words[0]):
            words.pop(0)
        if words:
            yield words


@pytest.mark.parametrize('name', [name for name in documents() if blocks(name)])
def test_commands_are_what_programs_take(name):
    variables: dict[str, str] = {}
    for block in blocks(name):
        if block.mark == 'run by':
            assert (ROOT / block.why).exists(), f'{block}: there is no {block.why}'
        if block.mark or block.language not in ('bash', 'sh', 'shell', 'console'):
            continue
        for words in commands(block, variables):
            try:
                check(words)
            except KeyError as unknown:
                pytest.fail(f'{block}: {unknown.args[0]} is no program of this repository; {HELP}')
            except (Exception, AssertionError) as error:
                pytest.fail(f'{block}: {shlex.join(words)}: {error}')


@pytest.mark.parametrize(('text', 'problem'), [
    ('python tools/train.py CONFIG --epoch-count 3', 'does not take'),
    ('mmmamba fly mamba-yolo_t', 'no command fly'),
    ('mmmamba train mamba-yolo_q', 'did you mean'),
    ('mmmamba train mamba-yolo_t --cfg-options modle.backbone.arch=b', 'did you mean model'),
    ('python tools/no_such_tool.py', 'no_such_tool'),
    ('tools/dist_train.sh configs/mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py 8 --colour red', 'does not take'),
    ('make cake', 'no target'),
    ("pip install 'mmmamba[moon]'", 'no extra'),
])
def test_a_command_that_does_not_work_is_found(text, problem):
    with pytest.raises((Exception, AssertionError), match=problem):
        check(shlex.split(text))


def test_other_programs_have_to_be_marked():
    with pytest.raises(KeyError):
        check(['rm', '-r', 'everything'])
