"""Settings by name, from the command line to the checkpoint."""
from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from mmmamba.analysis import batch_size
from mmmamba.analysis.batch_size import Fit
from mmmamba.commands import options
from mmmamba.settings import with_image_size

# Older PyTorch does not read mmengine's checkpoints so.
load = partial(torch.load, weights_only=torch.__version__ >= '2.6')


def test_several_settings_then_fine_tuning_then_a_test(tiny_config, run_tool, tmp_path, capsys, monkeypatch):
    def train(name: str, *words: object) -> tuple[Path, str]:
        capsys.readouterr()
        assert run_tool('train', tiny_config, '--work-dir', tmp_path / name, '--workers', 0, *words) == 0
        printed = capsys.readouterr()
        return tmp_path / name, printed.out + printed.err

    monkeypatch.setattr(options, 'largest_batch', lambda cfg, device: Fit(8, 2**30, 2**34, 'memory', 16))
    folder, said = train('first', '--epochs', 1, '--image-size', 64, 96, '--batch-size', 'auto', '--lr', 0.002,
                         '--classes', 'tall,square', '--early-stop', 3, '--seed', 5)
    assert "learning rate 0.002 for 8 images; the config's is for 16 images a step" in said
    assert '--batch-size auto: batches of 8 images' in said
    assert len(json.loads((folder / 'losses.json').read_text())) == 2  # two batches of 8
    checkpoint = load(folder / 'epoch_1.pth')
    assert checkpoint['meta']['dataset_meta']['classes'] == ('square', 'tall')
    cfg = Config.fromfile(folder / 'tiny.py')
    assert cfg.randomness.seed == 5 and cfg.train_cfg.max_epochs == 1 and cfg.model.bbox_head.num_classes == 2
    assert tuple(cfg.train_dataloader.dataset.pipeline[0].img_scale) == (96, 64)
    assert cfg.custom_hooks[-1].type == 'EarlyStoppingHook'

    folder, said = train('second', '--weights', folder / 'epoch_1.pth', '--freeze', 2, '--epochs', 1, '--image-size',
                         64, '--cfg-options', 'optim_wrapper.optimizer.lr=0.0')
    assert 'million parameters are trained' in said
    assert 'classes: 2 of 3 keep their weights (square, tall); start anew: wide' in said
    weights = load(folder / 'epoch_1.pth')['state_dict']
    assert all(torch.equal(weights[name], value) for name, value in checkpoint['state_dict'].items()
               if name.startswith(('backbone.', 'neck.')))
    name = 'bbox_head.cls_branches.0.2.weight'
    assert torch.equal(weights[name][[0, 2]], checkpoint['state_dict'][name])
    trained = sum(len(group['params']) for group in load(folder / 'epoch_1.pth')['optimizer']['param_groups'])
    assert trained < len(weights)

    assert run_tool('test', tiny_config, tmp_path / 'first/epoch_1.pth', '--work-dir', tmp_path / 'test', '--classes',
                    'square,tall', '--image-size', 64, '--batch-size', 2, '--device', 'cpu', '--workers', 0) == 0
    assert run_tool('test', tiny_config, tmp_path / 'first/epoch_1.pth', '--work-dir', tmp_path / 'test') == 2
    assert 'have another shape' in capsys.readouterr().err


@pytest.mark.parametrize('words, message', [
    (['--image-size', '100'], 'argument --image-size: must be a multiple of 32, such as 96 or 128, not 100'),
    (['--image-size', '64', '64', '64'], '--image-size takes one side or two'),
    (['--batch-size', 'many'], "argument --batch-size: must be a whole number from 1, not 'many'"),
    (['--classes', 'sqare'], "--classes: the data set has no class 'sqare'; did you mean square?"),
    (['--epochs', '0'], '--epochs: the number of epochs must be positive'),
    (['--lr', '-1'], '--lr: the learning rate must be positive'),
    (['--workers', '-1'], '--workers: '),
    (['--weights', 'none.pth'], '--weights: none.pth: no such file, and no weights of that name'),
    (['--freeze', 'neck'], 'argument --freeze: must be backbone or a number of stages'),
    (['--freeze', 'backbone'], '--freeze: a frozen backbone needs trained weights'),
    (['--early-stop', '0'], '--early-stop: the patience'),
    (['--seed', '-1'], 'argument --seed: must be a whole number from 0'),
    (['--device', 'gpu'], '--device gpu: must be cpu, cuda or cuda:N'),
    (['--device', 'cpu', '--launcher', 'pytorch'], 'each process has a device of its own'),
    (['--batch-size', 'auto', '--launcher', 'pytorch'], '--batch-size auto is measured for one process'),
])
def test_bad_values_are_one_line(tiny_config, run_tool, tmp_path, capsys, words, message):
    assert run_tool('train', tiny_config, '--work-dir', tmp_path / 'run', *words) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert 'error: ' in error and message in error
    assert not (tmp_path / 'run').exists()


def test_a_device_is_the_runners(monkeypatch):
    from mmengine.device import get_device, utils

    monkeypatch.setattr(utils, 'DEVICE', 'cuda')
    options.use_device('cpu')
    assert get_device() == 'cpu'


def test_the_largest_batch_is_measured_by_training_steps(tiny_config, monkeypatch, mmdet_scope):
    def run(words, **_):  # here, since a process would import everything anew
        stdout = io.StringIO()
        with redirect_stdout(stdout):
            batch_size.measure(words[-3], words[-2], float(words[-1]))
        return SimpleNamespace(stdout=stdout.getvalue(), stderr='', returncode=0)

    monkeypatch.setattr(batch_size.subprocess, 'run', run)
    cfg = with_image_size(Config.fromfile(tiny_config), 64, 64)
    fit = batch_size.largest_batch(cfg, 'cpu')
    assert fit.images == fit.most == 16 and 0 < fit.needed < fit.free
    assert str(fit).startswith('batches of 16 images: a training step needs ')


def test_a_batch_that_does_not_fit(tiny_config, monkeypatch):
    records = [dict(images=images, needed=images * 2**30, free=10 * 2**30, where='memory', most=100)
               for images in (1, 2, 4, 8)]

    def run(words, **_):
        lines = '\n'.join(map(json.dumps, records))
        return SimpleNamespace(stdout=f'a log line\n{lines}\n', stderr='... a warning\nno such file: x', returncode=1)

    monkeypatch.setattr(batch_size.subprocess, 'run', run)
    cfg = Config.fromfile(tiny_config)
    assert batch_size.largest_batch(cfg, 'cpu').images == 4
    with pytest.raises(batch_size.InputError, match='one image needs 1.0 GiB, and 5% of the free memory are 0.5 GiB'):
        batch_size.largest_batch(cfg, 'cpu', share=0.05)
    records.clear()
    with pytest.raises(batch_size.InputError, match='no training step could be made: no such file: x'):
        batch_size.largest_batch(cfg, 'cpu')
