"""tools/compare.py, from configs to the report."""
from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import preloaded
import pytest
from mmdet.registry import MODELS
from mmengine.runner import Runner
from tiny_demo import COMPOSITION

from mmmamba.analysis.compare import runs
from mmmamba.analysis.compare.runs import read_history
from mmmamba.datasets.composed import compose

ROOT = Path(__file__).resolve().parents[2]
GOOD = f"""
_base_ = '{ROOT}/configs/mamba_yolo/mamba-yolo_t_demo.py'
model = dict(
    backbone=dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16)),
    neck=dict(in_channels=[16, 16, 16]),
    bbox_head=dict(in_channels=[16, 16, 16]),
    test_cfg=dict(max_per_img=10))
"""
# It builds, and fails when the first image comes.
FAILING = GOOD.replace('bbox_head=dict(in_channels=[16, 16, 16])', 'bbox_head=dict(in_channels=[16, 16, 8])')
OWN_BACKBONE = """
from mmdet.registry import MODELS
from mmengine.runner import Runner
from mmmamba.models.backbones import ODMamba

@MODELS.register_module()
class OwnBackbone(ODMamba):
    pass
"""
BROKEN = GOOD.replace('widths=', 'breadths=')
OPTIONS = ['--epochs', '1', '--cfg-options', 'train_dataloader.batch_size=2', 'train_dataloader.num_workers=0',
           'val_dataloader.num_workers=0', 'test_dataloader.num_workers=0']


@pytest.fixture
def configs(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    compose(tmp_path / 'digits', COMPOSITION)
    for name, text in (('good', GOOD), ('failing', FAILING), ('broken', BROKEN)):
        (tmp_path / f'{name}.py').write_text(text)
    return ['broken.py', 'failing.py', 'good.py']


@pytest.fixture(autouse=True)
def started_at_once(monkeypatch) -> None:
    """Saves the seconds that every run of train.py and test.py takes to import its libraries."""
    monkeypatch.setattr(runs, 'subprocess', preloaded)


def rows(report: Path) -> dict[str, dict[str, str]]:
    with (report / 'runs.csv').open(newline='', encoding='utf-8') as file:
        return {row['config']: row for row in csv.DictReader(file)}


def test_what_fails_is_a_row_while_the_others_finish(configs, run_tool, capsys):
    call = [*configs, '--data', 'digits', '--jobs', '2', *OPTIONS]
    assert run_tool('compare', *call) == 1  # the report is written all the same
    printed = capsys.readouterr()
    out = printed.out
    assert '2 of 3 runs have no result: broken, seed 0; failing, seed 0' in printed.err
    assert '3 runs, 2 to do' in out and 'good, seed 0: AP 0.' in out and 'failing, seed 0: FAILED' in out

    report = Path('work_dirs/compare/digits/report')
    found = rows(report)
    assert not found['good']['failure'] and 0 <= float(found['good']['ap']) <= 1
    assert 'breadths' in found['broken']['failure'] and 'train.py ended with status' in found['failing']['failure']
    for page in ('README.md', 'index.html'):
        text = (report / page).read_text()
        assert 'breadths' in text and 'python ' in text and '--data digits' in text
    assert (report / 'ap_over_epochs.png').is_file() and (report / 'pictures.png').is_file()

    # What has finished is not run again, what failed is; and nothing with --report-only.
    checkpoint = next(Path('work_dirs/compare/digits/good/seed0/train').glob('epoch_*.pth'))
    before = checkpoint.stat().st_mtime
    assert run_tool('compare', *configs[::2], '--report-only', '--no-pictures', '--data', 'digits', *OPTIONS) == 1
    assert checkpoint.stat().st_mtime == before and not (report / 'pictures.png').exists()
    assert rows(report).keys() == {'broken', 'good'} and not rows(report)['good']['failure']

    # A finished run is no result of a config that cannot be built any more.
    assert run_tool('compare', 'good.py', '--report-only', '--data', 'digits', *OPTIONS) == 0
    Path('good.py').write_text(BROKEN)
    assert run_tool('compare', *configs[1:], '--report-only', '--data', 'digits', *OPTIONS) == 1
    assert 'breadths' in rows(report)['good']['failure']
    Path('good.py').write_text(GOOD)

    longer = list(call)
    longer[longer.index('--epochs') + 1] = '2'
    assert run_tool('compare', *longer) == 2
    assert 'holds a run of another config, which differs in' in capsys.readouterr().err


def test_minutes_an_own_module_and_another_call(configs, run_tool, capsys, tmp_path, monkeypatch):
    (tmp_path / 'own_backbone.py').write_text(OWN_BACKBONE)
    (tmp_path / 'own.py').write_text(
        GOOD.replace('backbone=dict(', "backbone=dict(type='OwnBackbone', ")
        + "custom_imports = dict(imports=['mmmamba', 'own_backbone'])\n")
    monkeypatch.setenv('PYTHONPATH', f'{tmp_path}{os.pathsep}{ROOT}')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'own_backbone', raising=False)
    options = ['--data', 'digits', '--minutes', '0.001', *OPTIONS[2:]]
    assert run_tool('compare', 'own.py', *options) == 0
    report = Path('work_dirs/compare/digits/report')
    assert not rows(report)['own']['failure'] and rows(report)['own']['epochs'] == '1'
    assert 'as many as fit into 0.001 minutes' in (report / 'README.md').read_text()

    # Other options are refused, whether or not there is a config besides that could be trained under them.
    capsys.readouterr()
    assert run_tool('compare', 'own.py', 'good.py', *options, 'train_dataloader.batch_size=3') == 2
    assert 'trial holds a run of another config' in capsys.readouterr().err
    MODELS.module_dict.pop('OwnBackbone')


# Where a run of two epochs is killed, one call of the tool after the other: in training, while a checkpoint is being
# saved, between a checkpoint and its validation, between the last validation and the test, in the test, and before its
# results are written.
STAGES = ('after_train_iter 0', 'before_save_checkpoint 1', 'after_train_epoch 1', 'after_train 2',
          'after_test_iter 0', 'after_test 0')


def test_wherever_it_is_killed_the_same_call_goes_on(configs, run_tool, tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', f'{Path(__file__).parent}{os.pathsep}{ROOT}')
    monkeypatch.setenv('KILL_AT', str(tmp_path / 'stages.txt'))
    monkeypatch.setattr(Runner, 'call_hook', Runner.call_hook)  # which the import below replaces
    monkeypatch.syspath_prepend(Path(__file__).parent)
    for name in ('whole', 'killed'):
        Path(f'{name}.py').write_text(GOOD + "custom_imports = dict(imports=['mmmamba', 'process_killer'])\n")
    call = ['--data', 'digits', '--no-pictures', '--epochs', '2', *OPTIONS[2:]]

    Path('stages.txt').write_text('')
    assert run_tool('compare', 'whole.py', *call) == 0
    Path('stages.txt').write_text('\n'.join(STAGES))
    for stage in STAGES:
        assert run_tool('compare', 'killed.py', *call) == 1, stage
        assert 'SIGKILL' in rows(Path('work_dirs/compare/digits/report'))['killed']['failure']
    assert run_tool('compare', 'killed.py', *call) == 0

    folders = [Path('work_dirs/compare/digits', name, 'seed0') for name in ('whole', 'killed')]
    for name in ('results.metrics.json', 'results.bbox.json'):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    whole, killed = ([(item.epoch, item.ap) for item in read_history(folder / 'train')] for folder in folders)
    assert whole == killed and [epoch for epoch, _ in whole] == [1, 2]


@pytest.mark.parametrize('place', ['launches', 'truth_of', 'write_report'])
def test_interrupted_anywhere_it_names_the_call_that_goes_on(place, configs, run_tool, capsys, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f'mmmamba.commands.compare.{place}', interrupt)
    monkeypatch.setenv('BCCD', 'blood')
    assert run_tool('compare', 'good.py', '--data', 'digits', '--report-only') == 130
    assert capsys.readouterr().err.splitlines()[-1].startswith(
        'error: interrupted; the same call goes on where it was: BCCD=blood python compare.py good.py --data digits')


def test_a_test_set_that_cannot_be_reported_is_noticed_before_training(configs, run_tool, capsys):
    path = Path('digits/annotations/val.json')
    path.write_text(json.dumps({**json.loads(path.read_text()), 'annotations': []}))
    assert run_tool('compare', 'good.py', '--data', 'digits', *OPTIONS) == 2
    assert 'has no annotations' in capsys.readouterr().err
    assert not Path('work_dirs/compare/digits/good/seed0/train').exists()


@pytest.mark.parametrize('arguments, words', [
    (['missing.py', '--data', 'bccd'], 'no such file: missing.py'),
    (['good.py', 'good.py', '--data', 'bccd'], 'detector good is named twice'),
    (['good.py', '--data', 'bccd', '--seeds', '1', '1'], 'seed 1 is named twice'),
    (['good.py', '--data', 'bccd', '--jobs', '0'], 'must be positive'),
    (['good.py', '--data', 'bccd', '--epochs', '1', '--minutes', '1'], 'not allowed with'),
    (['good.py', '--data', 'nowhere'], 'must be one of coco, voc, bccd, demo, or a folder'),
    (['broken.py', '--data', 'digits'], 'none of the configs can be built'),
])
def test_bad_arguments_end_in_one_line(arguments, words, configs, run_tool, capsys):
    assert run_tool('compare', *arguments) == 2
    assert words in capsys.readouterr().err
    assert not list(Path().glob('work_dirs/compare/*/good'))
