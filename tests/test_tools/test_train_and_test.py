"""tools/train.py, tools/test.py and dist_train.sh, from the config to the numbers, and what they say of bad input."""
from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from torch.distributed.elastic.utils.distributed import get_free_port

from mmmamba import __main__ as program
from mmmamba.commands import train
from mmmamba.engine import CheckedRunner

ROOT = Path(__file__).resolve().parents[2]
# Older PyTorch does not read mmengine's checkpoints so.
load = partial(torch.load, weights_only=torch.__version__ >= '2.6')


def refuse(constant: str):
    raise AssertionError(f'{constant} is no JSON')


def losses(work_dir: Path) -> list[float]:
    return json.loads((work_dir / 'losses.json').read_text())


def test_train_resume_and_test(tiny_config, run_tool, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    work_dir = tmp_path / 'run'
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert len(losses(work_dir)) == 4
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--resume') == 0
    checkpoint = work_dir / 'epoch_2.pth'
    assert (work_dir / 'last_checkpoint').read_text() == str(checkpoint)
    told = dict(re.split(' {2,}', line, maxsplit=1) for line in capsys.readouterr().out.splitlines()
                if re.match(r'\S.* {2}', line))
    assert all(Path(told[name]).is_file() and told[name].startswith('run/')
               for name in ('best checkpoint', 'last checkpoint', 'log', 'curves'))
    assert re.fullmatch(r'0\.\d{3} at epoch [12]', told['best AP'])
    assert told['to export it'].startswith('mmmamba export run/tiny.py ')

    for name, made in (('test', 'run/*/*.json'), ('use', 'outputs/preds/*.json')):  # what it told works
        monkeypatch.setattr(sys, 'argv', shlex.split(told[f'to {name} it']))
        program.main()
        assert list(tmp_path.glob(made)), capsys.readouterr().err

    prefix = tmp_path / 'results' / 'tiny'
    for options in ([], ['--tta']):
        capsys.readouterr()
        assert run_tool('test', tiny_config, checkpoint, '--work-dir', tmp_path / 'test', '--out', prefix,
                        *options) == 0
        printed = capsys.readouterr()
        assert 'category' in printed.out + printed.err and 'square' in printed.out + printed.err  # the per-class table
        detections = json.loads(Path(f'{prefix}.bbox.json').read_text())
        assert detections and set(detections[0]) == {'image_id', 'bbox', 'score', 'category_id'}
        metrics = json.loads(Path(f'{prefix}.metrics.json').read_text(), parse_constant=refuse)
        assert 0 <= metrics['coco/bbox_mAP'] <= 1 and 'coco/square_precision' in metrics


class AskedToEnd(Hook):
    """Sends the process a signal in the second iteration, once."""

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_a_training_that_is_asked_to_end_goes_on_by_itself_when_it_is_restarted(
        tiny_config, run_tool, tmp_path, capsys, monkeypatch):
    build = CheckedRunner.from_cfg

    def with_signal(cfg):
        runner = build(cfg)
        runner.register_hook(AskedToEnd())
        return runner

    monkeypatch.setattr(CheckedRunner, 'from_cfg', with_signal)
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run') == 128 + signal.SIGUSR1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(r'stopped by SIGUSR1: saved \S*run/stopped.pth; continue with: python .* --resume', said)
    assert load(tmp_path / 'run/stopped.pth')['meta']['iter'] == 2
    monkeypatch.setenv('SLURM_RESTART_COUNT', '1')
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run') == 0
    assert load(tmp_path / 'run/epoch_2.pth')['meta']['iter'] == 8
    assert len(losses(tmp_path / 'run')) == 6


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
def test_amp_stays_finite(tiny_config, run_tool, tmp_path, dtype):
    work_dir = tmp_path / 'run'
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--amp', dtype, '--cfg-options',
                    'train_cfg.max_epochs=1') == 0
    weights = load(work_dir / 'epoch_1.pth')['state_dict']
    assert all(torch.isfinite(value).all() for value in weights.values())
    assert all(loss == pytest.approx(losses(work_dir)[0], rel=0.5) for loss in losses(work_dir))


def test_auto_scale_lr_scales_by_the_batch(tiny_config, run_tool, tmp_path):
    run_tool('train', tiny_config, '--work-dir', tmp_path / 'run', '--auto-scale-lr', '--cfg-options',
             'train_cfg.max_epochs=1', 'auto_scale_lr.base_batch_size=16')
    groups = load(tmp_path / 'run/epoch_1.pth')['optimizer']['param_groups']
    base = load(tmp_path / 'run/epoch_1.pth')['param_schedulers'][0]['base_values']
    assert base[:len(groups)] == pytest.approx([0.0014 / 4] * len(groups))  # mmengine appends one for its log


NO_WORKERS = [f'{loader}_dataloader.{setting}' for loader in ('train', 'val', 'test')
              for setting in ('num_workers=0', 'persistent_workers=True', 'prefetch_factor=2')]


def test_a_class_without_objects_no_workers_and_overflowing_gradients(tiny_config, run_tool, tmp_path,
                                                                      shared_coco_folder):
    """What gives NaN and infinity, which are written as null; with loaders whose workers are switched off."""
    path, work_dir, prefix = tmp_path / 'val.json', tmp_path / 'run', tmp_path / 'results/tiny'
    content = json.loads((shared_coco_folder / 'annotations/val.json').read_text())
    content['annotations'] = [item for item in content['annotations'] if item['category_id'] != 2]
    path.write_text(json.dumps(content))
    tiny_config.write_text(tiny_config.read_text() + f"""
for settings in (val_dataloader['dataset'], test_dataloader['dataset'], val_evaluator, test_evaluator):
    settings.update(ann_file={str(path)!r})
del settings
val_evaluator.update(classwise=True)
""")
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--amp', 'float16', '--cfg-options',
                    'train_cfg.max_epochs=1', 'train_cfg.val_interval=1', *NO_WORKERS,
                    # mmengine makes one of a name in a process, and other tests have made theirs
                    'visualizer.name=of_no_workers') == 0
    assert run_tool('test', tiny_config, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'test', '--out', prefix,
                    '--cfg-options', *NO_WORKERS) == 0
    metrics = json.loads(Path(f'{prefix}.metrics.json').read_text(), parse_constant=refuse)
    assert metrics['coco/wide_precision'] is None and metrics['coco/square_precision'] is not None
    records = [json.loads(line, parse_constant=refuse)
               for line in next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert any('grad_norm' in record for record in records)
    assert any(record.get('coco/wide_precision', 0) is None for record in records)


def test_resuming_says_what_is_missing_changed_or_done(tiny_config, run_tool, tmp_path, capsys):
    def train(*options: object) -> str:
        capsys.readouterr()
        assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run', '--resume', *options) == 0
        printed = capsys.readouterr()
        return printed.out + printed.err

    one = ['--cfg-options', 'train_cfg.max_epochs=1']
    assert 'has no checkpoint to resume from: training starts from the beginning' in train(*one)
    assert len(losses(tmp_path / 'run')) == 4
    assert 'Nothing is left to train: the checkpoint has 1 epochs, train_cfg.max_epochs is 1' in train(*one)
    said = train('--cfg-options', 'optim_wrapper.optimizer.lr=0.001')
    assert 'optim_wrapper.optimizer.lr 0.0014 → 0.001' in said and 'train_cfg.max_epochs 1 → 2' in said
    base = load(tmp_path / 'run/epoch_2.pth')['param_schedulers'][0]['base_values']
    assert set(base) == {0.001}


def test_without_a_checkpoint_to_resume_the_weights_of_the_config_are_loaded(tiny_config, run_tool, tmp_path):
    one = ['--cfg-options', 'train_cfg.max_epochs=1', 'optim_wrapper.optimizer.lr=0.0']
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'first', *one, 'randomness.seed=8') == 0
    first = tmp_path / 'first/epoch_1.pth'
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'second', '--resume', *one,
                    f'load_from={first}') == 0
    name = 'backbone.stem.conv1.conv.weight'
    weights = [load(path)['state_dict'][name] for path in (first, tmp_path / 'second/epoch_1.pth')]
    assert torch.equal(*weights)


def test_an_interrupted_training_names_the_call_that_continues_it(tiny_config, run_tool, tmp_path, capsys,
                                                                  monkeypatch):
    def interrupt(runner) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckedRunner, 'train', interrupt)
    work_dir = tmp_path / 'run'
    call = [tiny_config, '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_epochs=1']
    words = ' '.join(map(str, call))

    def said(*options: object) -> str:
        assert run_tool('train', *call, *options) == 130
        return capsys.readouterr().err.strip().splitlines()[-1]

    prefix = f'error: interrupted; continue with: python train.py {words}'
    assert said() == f'{prefix} --resume' == said('--resume')
    named = tmp_path / 'named.pth'
    named.touch()
    assert said('--resume', named) == f'{prefix} --resume {named}'  # nothing newer has been saved

    def save_and_interrupt(runner) -> None:
        (work_dir / 'last_checkpoint').write_text('epoch_1.pth')
        raise KeyboardInterrupt

    monkeypatch.setattr(CheckedRunner, 'train', save_and_interrupt)
    assert said('--resume', named) == f'{prefix} --resume'


def test_two_processes_equal_one_of_the_doubled_batch(tiny_config, tmp_path):
    options = ['--cfg-options', 'model.backbone.ssm_init=mamba']
    environment = {**os.environ, 'PORT': str(get_free_port()), 'OMP_NUM_THREADS': '1',
                   'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'}
    commands = {
        'one': [sys.executable, 'tools/train.py', tiny_config, '--work-dir', tmp_path / 'one', *options],
        'two': ['tools/dist_train.sh', tiny_config, '2', '--work-dir', tmp_path / 'two', *options,
                'train_dataloader.batch_size=2'],
    }
    for command in commands.values():
        done = subprocess.run([str(word) for word in command], cwd=ROOT, env=environment, capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    one, two = losses(tmp_path / 'one'), losses(tmp_path / 'two')
    assert len(one) == len(two) == 8
    assert two == pytest.approx(one, rel=1e-4)


def test_a_second_training_in_a_work_dir_is_refused(tiny_config, run_tool, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(train, '_RUN_ENDS', 0.1)
    work_dir = tmp_path / 'run'
    with train.alone_in(work_dir):
        assert run_tool('train', tiny_config, '--work-dir', work_dir) == 2
        assert capsys.readouterr().err == (
            f'error: another training writes to {work_dir}; --work-dir names another folder (if none does: remove '
            f'{work_dir}/.training.lock)\n')
        monkeypatch.setenv('SLURM_RESTART_COUNT', '1')  # of a node that is lost, a file server may keep the lock
        with train.alone_in(work_dir):
            pass
    assert not work_dir.exists()


BAD_SETTINGS = {
    'arch': (['model.backbone.arch=xl'], 'arch must be one of'),
    'out_indices': (['model.backbone.out_indices=(1,2,7)'], 'out_indices must be'),
    'channels': (['model.neck.in_channels=(16,16,24)'], 'ODSSPAFPN was made for maps of (16, 16, 24) channels'),
    'num_classes': (['model.bbox_head.num_classes=2'], 'bbox_head has num_classes=2, the train set 3: square,'),
    'type': (['model.backbone.type=ODMambo'], 'ODMambo'),
    'annotations': (['train_dataloader.dataset.dataset.ann_file=annotations/none.json'], 'no such annotation file'),
    'unknown setting': (['optim_wraper.optimizer.lr=0.1'], 'did you mean optim_wrapper?'),
    'setting without parts': (['train_cfg.max_epochs.x=1'], '--cfg-options: '),
    'tensorboard': (['visualizer.vis_backends.0.type=TensorboardVisBackend', 'visualizer.name=of_tensorboard'],
                    'pip install tensorboard'),
    'classes': (["train_dataloader.dataset.dataset.metainfo.classes=('cat',)"], "configured classes: 'cat'"),
}


@pytest.mark.parametrize('name', BAD_SETTINGS)
def test_bad_settings_are_one_line_and_leave_no_checkpoint(tiny_config, run_tool, tmp_path, capsys, name,
                                                           monkeypatch):
    settings, message = BAD_SETTINGS[name]
    if name == 'tensorboard':
        monkeypatch.setitem(sys.modules, 'tensorboard', None)
    work_dir = tmp_path / 'run'
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--cfg-options', *settings) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and message in error
    assert not list(work_dir.glob('*.pth'))


def test_damaged_and_missing_images(tiny_config, run_tool, tmp_path, shared_coco_folder, capsys):
    data, work_dir = tmp_path / 'data', tmp_path / 'run'
    shutil.copytree(shared_coco_folder, data)
    tiny_config.write_text(tiny_config.read_text().replace(str(shared_coco_folder), str(data)))

    def damage(split: str) -> None:
        image = data / split / '000002.jpg'
        image.write_bytes(image.read_bytes()[:-200])

    damage('train')
    options = ['--cfg-options', 'train_cfg.max_epochs=1']
    assert run_tool('train', tiny_config, '--work-dir', work_dir, *options) == 0
    printed = capsys.readouterr()
    assert '1 unreadable image(s) replaced by others so far: 000002.jpg' in printed.out + printed.err
    damage('val')
    assert run_tool('test', tiny_config, work_dir / 'epoch_1.pth', '--work-dir', tmp_path / 'test') == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith('error: ') and '000002.jpg is truncated' in error

    (data / 'train' / '000003.jpg').unlink()
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'second', *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert '1 of 16 images' in error and error.endswith("'000003.jpg'")
    assert not list((tmp_path / 'second').glob('*.pth'))


def test_missing_config_and_foreign_checkpoint(tiny_config, run_tool, tmp_path, capsys):
    assert run_tool('train', tmp_path / 'none.py') == 2
    assert 'error: ' in capsys.readouterr().err
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run', '--resume', tmp_path / 'none.pth') == 2
    assert f'error: --resume: no such file: {tmp_path}/none.pth' in capsys.readouterr().err
    assert run_tool('train', tiny_config, '--work-dir', tiny_config / 'run') == 2
    assert f'error: cannot use {tiny_config}' in capsys.readouterr().err
    (tmp_path / 'run').mkdir(exist_ok=True)
    (tmp_path / 'run/last_checkpoint').write_text('elsewhere/epoch_3.pth')
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run', '--resume') == 2
    assert 'names elsewhere/epoch_3.pth, which is not there' in capsys.readouterr().err

    torch.save(dict(state_dict={'backbone.conv.weight': torch.zeros(3)}), tmp_path / 'other.pth')
    assert run_tool('test', tiny_config, tmp_path / 'other.pth', '--work-dir', tmp_path / 'run') == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'weights are missing (backbone.stem.conv1.conv.weight' in error
    assert 'are unknown (backbone.conv.weight)' in error


def test_nan_loss_stops_and_keeps_the_last_checkpoint(tiny_config, run_tool, tmp_path, capsys):
    work_dir = tmp_path / 'run'
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--cfg-options', 'train_cfg.max_epochs=1') == 0
    assert run_tool('train', tiny_config, '--work-dir', work_dir, '--resume', '--cfg-options',
                    'model.bbox_head.loss_dfl.type=DistributionFocalLoss',
                    'model.bbox_head.loss_dfl.loss_weight=inf') == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'epoch 2, iteration 1' in error and 'epoch_1.pth' in error
    assert [path.name for path in work_dir.glob('epoch_*.pth')] == ['epoch_1.pth']
