"""The sweep over input sizes, run as a user runs it."""
from __future__ import annotations

import csv
import json
import re
import subprocess
from functools import partial
from pathlib import Path

import mmcv
import pytest
from small_detector import CONFIG

from mmmamba.analysis.measurement import Task
from mmmamba.analysis.scaling import measure_apart

ROOT = Path(__file__).parents[2]
TOOL = ROOT / 'tools/analysis_tools/scaling.py'
RESULT = dict(memory_mib=1.0, total_mib=9.0, parameters=5, linear_gflops=2.0, scan_gflops=1.0, median_ms=3.0,
              p20_ms=2.0, p80_ms=4.0, images_per_s=333.3)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'tiny.py'
    path.write_text(CONFIG)
    return path


@pytest.fixture
def tool(run_script, tmp_path):
    return partial(run_script, TOOL, '--out', tmp_path / 'out', '--device', 'cpu', '--threads', 1, '--runs', 2)


@pytest.fixture
def rows(tmp_path):
    def read():
        with (tmp_path / 'out/scaling.csv').open(newline='') as file:
            return {(row['config'], row['pass'], int(row['side'])): row for row in csv.DictReader(file)}
    return read


@pytest.fixture
def children(monkeypatch):
    """Stands in for the processes: the list of what was started, and ``answers`` by config's name and side."""
    started, answers = [], {}
    monkeypatch.setattr('mmmamba.analysis.scaling.draw_scaling', lambda rows, out: None)  # tested elsewhere

    def start(command, **options):
        task = Task(**json.loads(command[-1]))
        started.append((Path(task.config).stem, task.pass_, task.side))
        answer = answers.get((Path(task.config).stem, task.side), RESULT)
        if isinstance(answer, BaseException):
            raise answer
        status, output = answer if isinstance(answer, tuple) else (0, json.dumps(answer))
        return subprocess.CompletedProcess(command, status, output, output)

    monkeypatch.setattr(subprocess, 'run', start)
    return started, answers


def test_sweep_in_processes_of_their_own(tool, config, rows, tmp_path, capfd):
    """64 is measured, an image of 16384 alone takes 3 GiB; a second call measures nothing that is there."""
    assert tool(config, '--sides', 20000, 64, 16384, '--passes', 'forward', '--memory-limit', 2) == 0
    found = rows()
    assert [side for *_, side in found] == [64, 16384, 20000]
    small = found['tiny', 'forward', 64]
    assert not small['failure'] and small['threads'] == '1'
    # Of so small a pass, memory may be less than a page.
    assert all(float(small[column]) > 0 for column in RESULT if column != 'memory_mib') and small['memory_mib']
    assert found['tiny', 'forward', 16384]['failure'] == 'out of memory (limit 2 GiB)'
    assert found['tiny', 'forward', 20000]['failure'] == 'not tried: 16384 did not fit'
    assert (tmp_path / 'out/scaling.png').stat().st_size > 10_000
    table = (tmp_path / 'out/exponents.md').read_text()
    assert '| tiny | forward | float32 | 64–64 (1) |' in table and table.strip().endswith('did not fit |')
    assert table.strip() in capfd.readouterr().out

    assert tool(config, '--sides', 64, '--passes', 'forward') == 0
    assert capfd.readouterr().out.count('(measured before)') == 1
    assert rows() == found


def test_only_what_is_missing_or_failed_is_measured(tool, config, rows, children):
    started, answers = children
    answers['tiny', 96] = dict(failure='RuntimeError: too odd', fits=True)
    assert tool(config, '--sides', 64, 96, 128) == 0
    assert started == [('tiny', pass_, side) for pass_ in ('forward', 'training') for side in (64, 96, 128)]
    assert rows()['tiny', 'training', 96]['failure'] == 'RuntimeError: too odd'

    started.clear(), answers.clear()
    assert tool(config, '--sides', 64, 96, 160) == 0
    assert started == [('tiny', pass_, side) for pass_ in ('forward', 'training') for side in (96, 160)]
    assert len(rows()) == 8 and not any(row['failure'] for row in rows().values())


@pytest.mark.parametrize('answer, failure', [
    (dict(failure='out of memory', fits=False), 'out of memory (limit 2 GiB)'),
    (subprocess.TimeoutExpired('python', 3), 'takes more than 3 s'),
    ((-9, ''), 'ended by SIGKILL'),
    ((-6, ''), 'ended by SIGABRT'),
])
def test_what_does_not_fit_ends_only_its_own_line(tool, config, rows, children, tmp_path, answer, failure):
    started, answers = children
    other = tmp_path / 'other.py'
    other.write_text(CONFIG)
    answers['tiny', 96] = answer
    assert tool(config, other, '--sides', 64, 96, 128, '--memory-limit', 2, '--timeout', 3) == 0
    assert ('tiny', 'forward', 128) not in started and ('other', 'training', 128) in started
    assert rows()['tiny', 'forward', 96]['failure'] == failure
    assert rows()['tiny', 'forward', 128]['failure'] == 'not tried: 96 did not fit'
    assert not rows()['other', 'forward', 128]['failure']


def test_a_broken_config_is_a_row(tool, config, rows, children):
    started, answers = children
    answers.update({('tiny', side): (1, 'Traceback\nKeyError: nonsense') for side in (64, 96)})
    assert tool(config, '--sides', 64, 96, '--passes', 'forward') == 0
    assert [row['failure'] for row in rows().values()] == ['Traceback KeyError: nonsense'] * 2
    assert len(started) == 2


@pytest.mark.parametrize('answer, failure', [
    ((-11, ''), 'ended by SIGSEGV'),
    ((0, '{}\nbye'), 'no result, but: bye'),
    ((0, '5'), 'no result, but: 5'),
])
def test_what_says_nothing_of_memory_does_not_end_its_line(tool, config, rows, children, answer, failure):
    started, answers = children
    answers['tiny', 64] = answer
    assert tool(config, '--sides', 64, 96, '--passes', 'forward') == 0
    assert [row['failure'] for row in rows().values()] == [failure, '']
    assert len(started) == 2


def test_rows_of_another_model_are_not_taken_for_this_ones(tool, config, rows, children, capsys):
    started, answers = children
    answers['tiny', 96] = dict(failure='RuntimeError: too odd', fits=True)
    assert tool(config, '--sides', 64, 96) == 0
    started.clear(), answers.clear()
    config.write_text(CONFIG.replace('(1, 1, 1, 1)', '(1, 1, 2, 1)'))
    assert tool(config, '--sides', 96) == 2
    error = capsys.readouterr().err
    assert 'tiny was measured of another model' in error and '--out' in error and not started
    config.write_text(CONFIG + 'train_cfg = dict(max_epochs=3)  # is no part of the model\n')
    assert tool(config, '--sides', 64, 96) == 0
    assert started == [('tiny', pass_, 96) for pass_ in ('forward', 'training')]


def test_a_failure_of_another_model_is_measured_again(tool, config, rows, children):
    children[1]['tiny', 64] = dict(failure='RuntimeError: too odd', fits=True)
    assert tool(config, '--sides', 64, '--passes', 'forward') == 0
    children[1].clear()
    config.write_text(CONFIG.replace('(1, 1, 1, 1)', '(1, 1, 2, 1)'))
    assert tool(config, '--sides', 64, '--passes', 'forward') == 0
    assert not rows()['tiny', 'forward', 64]['failure']


def test_rows_of_other_machines_are_not_mixed(tool, config, children, tmp_path, capsys):
    assert tool(config, '--sides', 64) == 0
    assert tool(config, '--sides', 96, '--threads', 2) == 2
    assert 'was measured with threads 1, not 2: name another --out' in capsys.readouterr().err
    table = tmp_path / 'out/scaling.csv'
    table.write_text(re.sub(f'{mmcv.__version__} (lite|full)', 'x', table.read_text()))
    assert tool(config, '--sides', 96) == 2
    assert 'was measured with mmcv x, not' in capsys.readouterr().err


def test_interruption_keeps_what_was_measured(tool, config, rows, children, capsys):
    children[1]['tiny', 96] = KeyboardInterrupt()
    assert tool(config, '--sides', 64, 96) == 130
    assert list(rows()) == [('tiny', 'forward', 64)]


def test_a_measurement_that_takes_too_long(config):
    assert measure_apart(Task(str(config), 64), timeout=0.1) == dict(failure='takes more than 0.1 s', fits=False)


@pytest.mark.parametrize('arguments, message', [
    (['--sides', 0], '--sides must be positive'),
    (['--runs', 1], '--runs must be at least 2'),
    (['--threads', 0], '--threads must be at least 1'),
    (['--timeout', 0], '--timeout must be positive'),
    (['--memory-limit', -1], '--memory-limit must be positive'),
    (['--device', 'cuda'], '--device cuda: '),
])
def test_bad_arguments_are_one_line(tool, config, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    assert tool(config, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'error: {message}') and error.count('\n') == 1


def test_bad_configs_are_one_line(tool, config, tmp_path, capsys):
    (tmp_path / 'empty.py').write_text('x = 1')
    (tmp_path / 'broken.py').write_text('model = dict(')
    (tmp_path / 'unnamed.py').write_text('model = nonsense')
    (tmp_path / 'again').mkdir()
    (tmp_path / 'again/tiny.py').write_text(CONFIG)
    for configs, message in (([tmp_path / 'absent.py'], 'absent.py'), ([tmp_path / 'empty.py'], 'has no model'),
                             ([ROOT / 'README.md'], 'README.md is no config'),
                             ([config, tmp_path / 'broken.py'], "is not valid Python: '(' was never closed"),
                             ([config, tmp_path / 'unnamed.py'], "unnamed.py is no config: name 'nonsense'"),
                             ([config, tmp_path / 'again/tiny.py'], 'two configs have the same file name')):
        assert tool(*configs) == 2
        error = capsys.readouterr().err
        assert message in error and error.count('\n') == 1


def test_a_folder_that_cannot_be_written_is_one_line(tool, config, children, tmp_path, capsys):
    (tmp_path / 'file').touch()
    for out, reason in ((tmp_path / 'file', 'File exists'), (tmp_path / 'file/out', 'Not a directory')):
        assert tool(config, '--out', out) == 2
        error = capsys.readouterr().err
        assert error.startswith('error: --out') and reason in error and error.count('\n') == 1
    assert not children[0]


def test_another_csv_is_not_overwritten(tool, config, tmp_path, capsys):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/scaling.csv').write_text('a,b\n1,2\n')
    assert tool(config) == 2
    assert 'is no CSV of a sweep' in capsys.readouterr().err
    assert (tmp_path / 'out/scaling.csv').read_text() == 'a,b\n1,2\n'
