"""Runs of a comparison: their folders, their processes, and several at a time."""
from __future__ import annotations

import fcntl
import json
import sys
import threading
from pathlib import Path

import pytest
import torch

from mmmamba.analysis.compare import runs as run_module
from mmmamba.analysis.compare.results import AP
from mmmamba.analysis.compare.runs import Launch, Run, execute_all, launches, read_history, read_run
from mmmamba.errors import InputError

TRAIN = """
import os, pathlib, sys
config, _, folder, *resume = sys.argv[1:]
folder = pathlib.Path(folder)
folder.mkdir(exist_ok=True)
print(pathlib.Path(config).read_text(), resume, os.environ.get('PLACE'))
if 'broken' in pathlib.Path(config).read_text():
    sys.exit('error: it is broken\\n')
(folder / 'last_checkpoint').write_text('elsewhere/weights.pth')
"""
TEST = """
import json, pathlib, sys
config, checkpoint, *options = sys.argv[1:]
assert pathlib.Path(checkpoint) == pathlib.Path(config).parent / 'train/weights.pth'
prefix = options[options.index('--out') + 1]
pathlib.Path(prefix + '.metrics.json').write_text(json.dumps({'coco/bbox_mAP': 0.25}))
pathlib.Path(prefix + '.bbox.json').write_text('[]')
"""


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    """Tools that do at once what the real ones take minutes for."""
    tools = tmp_path / 'tools'
    tools.mkdir()
    (tools / 'train.py').write_text(TRAIN)
    (tools / 'test.py').write_text(TEST)
    return Launch(tools, environment={'PLACE': 'here'})


def make(tmp_path: Path, name: str = 'net', seed: int = 0, config: str = "it = 'good'") -> Run:
    run = Run(name, seed, tmp_path / name / f'seed{seed}')
    run.prepare(config)
    return run


def test_a_run_is_trained_then_tested_where_it_is_told(tmp_path, launch):
    run = make(tmp_path)
    assert not run.finished and read_run(run, 7).failure == 'not run to its end yet'
    run.execute(launch)
    result = read_run(run, 7)
    assert run.finished and result.finished and result.metrics[AP] == 0.25 and result.parameters == 7
    assert result.detections.read_text() == '[]'
    assert (run.folder / 'log.txt').read_text() == "it = 'good' [] here\n"


def test_a_run_goes_on_from_its_last_checkpoint(tmp_path, launch):
    run = make(tmp_path)
    (run.folder / 'train').mkdir()
    (run.folder / 'train/last_checkpoint').write_text('where/it/was/weights.pth')
    run.execute(launch)
    assert f"['--resume', '{run.folder}/train/weights.pth']" in (run.folder / 'log.txt').read_text()


def test_a_failure_is_its_last_line_until_it_is_tried_again(tmp_path, launch):
    run = make(tmp_path, config="it = 'broken'")
    run.execute(launch)
    assert run.failure == 'train.py ended with status 1: error: it is broken'
    assert not run.finished and read_run(run, None).failure == f'failed: {run.failure}'
    (run.folder / 'config.py').write_text("it = 'good'")
    run.execute(launch)
    assert run.failure is None and run.finished


def test_a_failure_is_the_error_and_not_what_comes_after_it(tmp_path, launch):
    (launch.tools / 'train.py').write_text(
        'import sys\nprint("ValueError: too small\\n2 objects leaked at shutdown")\nsys.exit(1)')
    run = make(tmp_path)
    run.execute(launch)
    assert run.failure == 'train.py ended with status 1: ValueError: too small'


def test_a_run_that_is_killed_does_not_show_an_earlier_error(tmp_path, launch):
    run = make(tmp_path, config="it = 'broken'")
    run.execute(launch)
    assert run.failure.endswith('it is broken')
    (launch.tools / 'train.py').write_text('import os, signal\nos.kill(os.getpid(), signal.SIGKILL)')
    run.execute(launch)
    assert run.failure == 'train.py ended with SIGKILL: no output'


@pytest.mark.parametrize('end', ['sys.exit(130)', 'sys.exit(143)', 'os.kill(os.getpid(), signal.SIGTERM)'])
def test_a_run_that_was_stopped_has_not_failed(tmp_path, launch, end):
    (launch.tools / 'train.py').write_text(f'import os, signal, sys\n{end}')
    run = make(tmp_path)
    run.fail('an earlier cause')
    assert not run.train(launch)
    assert run.failure is None and read_run(run, None).failure == 'not run to its end yet'


def test_a_folder_has_one_process_at_a_time(tmp_path, launch, monkeypatch):
    monkeypatch.setattr(run_module, 'WORKERS_NOTICE', 0.3)
    run = make(tmp_path)
    with (run.folder / 'log.txt').open('ab') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        run.execute(launch)
    assert run.failure == 'another process is at work in the folder'
    run.execute(launch)
    assert run.finished


def test_a_killed_runs_data_workers_are_waited_for(tmp_path, launch):
    run = make(tmp_path)
    (run.folder / 'log.txt').touch()
    with (run.folder / 'log.txt').open('ab') as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        threading.Timer(0.5, lambda: fcntl.flock(log, fcntl.LOCK_UN)).start()
        run.execute(launch)
    assert run.finished


def test_a_metric_that_is_not_defined_is_left_out(tmp_path, launch):
    run = make(tmp_path)
    run.execute(launch)
    run.metrics.write_text('{"coco/bbox_mAP": 0.5, "coco/cat_precision": null}')
    assert read_run(run, None).metrics == {AP: 0.5, f'{AP}_50': 0.0, f'{AP}_75': 0.0}


def test_without_any_detection_all_ap_is_zero(tmp_path, launch):
    run = make(tmp_path)
    run.execute(launch)
    run.metrics.write_text('{}')
    assert read_run(run, None).metrics == {AP: 0.0, f'{AP}_50': 0.0, f'{AP}_75': 0.0}


def test_a_folder_keeps_to_its_config(tmp_path):
    run = make(tmp_path)
    run.prepare("it = 'goo' + 'd'")  # the same, in other words
    with pytest.raises(InputError, match='another config, which differs in it'):
        run.prepare("it = 'better'")
    assert (run.folder / 'config.py').read_text() == "it = 'good'"


def test_one_that_fails_does_not_stop_the_others(tmp_path, launch):
    runs = [make(tmp_path, name, config=f'it = {name!r}') for name in ('a', 'broken', 'c')]
    ended = []
    execute_all(runs, [launch], lambda run, minutes: ended.append((run.name, run.finished, minutes >= 0)))
    assert ended == [('a', True, True), ('broken', False, True), ('c', True, True)]


def test_as_many_run_at_a_time_as_there_are_places(tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=20)  # broken, if one waited for the other
    places = []

    def execute(self: Run, launch: Launch) -> None:
        both.wait()
        places.append(launch.environment['PLACE'])

    monkeypatch.setattr(Run, 'execute', execute)
    runs = [make(tmp_path, name) for name in 'abcd']
    two = [Launch(tmp_path, environment={'PLACE': place}) for place in ('first', 'second')]
    execute_all(runs, two, lambda run, minutes: None)
    assert sorted(places) == ['first', 'first', 'second', 'second']


def test_a_clusters_launcher_stands_before_the_command(tmp_path, launch):
    run = make(tmp_path)
    run.execute(Launch(launch.tools, (sys.executable, '-c', 'import sys; print(sys.argv[1:]); sys.exit("no nodes")')))
    log = (run.folder / 'log.txt').read_text()
    assert f"'{sys.executable}', '{launch.tools / 'train.py'}'" in log
    assert run.failure.endswith('no nodes')


@pytest.mark.parametrize('gpus, visible, expected', [
    (2, None, ['0', '1', '0']),
    (2, '5,7', ['5', '7', '5']),
    (0, None, [None] * 3),
])
def test_places_are_gpus_or_threads(gpus, visible, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: gpus)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: 8)
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    if visible:
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', visible)
    places = launches(tmp_path, 3, None)
    assert [place.environment.get('CUDA_VISIBLE_DEVICES') for place in places] == expected
    assert {place.environment.get('OMP_NUM_THREADS') for place in places} == {None if gpus else '2'}
    assert not any(place.prefix for place in places)


def test_slurm_assigns_the_gpus(tmp_path, monkeypatch):
    monkeypatch.setenv('SRUN_ARGS', '--account=us --time=1:00')
    place, = launches(tmp_path, 1, 'long')
    assert place.prefix[-2:] == ('--account=us', '--time=1:00')
    assert place.prefix[:2] == ('srun', '--partition=long')
    assert {'--gres=gpu:1', '--cpus-per-task=5'} < set(place.prefix)
    assert not place.environment
    monkeypatch.setenv('GPUS', '0')
    place, = launches(tmp_path, 1, 'cpus')
    assert '--gres=gpu:1' not in place.prefix and place.environment == {'OMP_NUM_THREADS': '5'}


def test_the_later_part_of_a_resumed_training_counts(tmp_path):
    def log(time: str, *records: dict) -> None:
        path = tmp_path / time / 'vis_data/scalars.json'
        path.parent.mkdir(parents=True)
        path.write_text('\n'.join(map(json.dumps, records)))

    def validation(epoch: int, ap: float) -> dict:
        return {'train_minutes': 2.0 * epoch, 'train_cpu_minutes': 3.0 * epoch, AP: ap, 'step': epoch}

    log('20260102_000000', validation(2, 0.2), {'train_minutes': 6.0, 'train_cpu_minutes': 9.0, 'step': 3})
    log('20260101_000000', {'loss': 1.0, 'step': 5}, validation(1, 0.1), validation(2, 0.9))
    with (tmp_path / '20260102_000000/vis_data/scalars.json').open('a') as file:
        file.write('\n{"train_minutes": 8.0, "tr')  # killed while writing
    history = read_history(tmp_path)
    assert [(entry.epoch, entry.ap) for entry in history] == [(1, 0.1), (2, 0.2), (3, 0.0)]
    assert [(entry.minutes, entry.cpu_minutes) for entry in history] == [(2, 3), (4, 6), (6, 9)]
