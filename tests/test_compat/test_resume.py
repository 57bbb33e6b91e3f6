"""Resuming with ``torch.load``'s default of ``weights_only=True``, and what that still refuses."""
from __future__ import annotations

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseModel
from mmengine.runner import Runner, checkpoint
from torch import Tensor, nn
from torch.utils.data import Dataset

import mmmamba  # noqa: F401  (allows what checkpoints hold)
from mmmamba.cli import describe
from mmmamba.compat.safe_globals import _checkpoint_globals, read_checkpoints_once

pytestmark = pytest.mark.skipif(torch.__version__ < '2.6', reason='torch.load does not check what it reads')


class Points(Dataset):
    METAINFO = dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)])

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> dict:
        point = torch.randn(4, generator=torch.Generator().manual_seed(index))
        return dict(inputs=point, data_samples=point.sum())


class Line(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)

    def forward(self, inputs: list[Tensor], data_samples: list[Tensor], mode: str) -> dict[str, Tensor]:
        return dict(loss=(self.layer(torch.stack(inputs))[:, 0] - torch.stack(data_samples)).square().mean())


class Scores(HistoryBuffer):
    """A class of the user's own: not allowed."""


def train(work_dir: Path, epochs: int, resume: bool) -> Runner:
    torch.manual_seed(0)
    runner = Runner(
        Line(), str(work_dir), resume=resume, experiment_name=f'{work_dir.name}_{epochs}_{resume}', log_level='ERROR',
        train_dataloader=dict(dataset=Points(), batch_size=2, sampler=dict(type='DefaultSampler', shuffle=True)),
        train_cfg=dict(by_epoch=True, max_epochs=epochs), randomness=dict(seed=0),
        optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05, momentum=0.9),
                           clip_grad=dict(max_norm=1.0)),
        param_scheduler=[dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=6),
                         dict(type='MultiStepLR', milestones=[1], by_epoch=True),
                         dict(type='LinearMomentum', start_factor=0.8, by_epoch=False, end=6)],
        custom_hooks=[dict(type='EMAHook', ema_type='ExponentialMovingAverage')],
        default_hooks=dict(logger=dict(type='LoggerHook', interval=1)))
    # What an evaluator leaves: the types of its numbers.
    runner.message_hub.update_scalar('val/AP', np.float64(0.5))
    runner.message_hub.update_scalar('val/AP_small', np.float32(-1))
    runner.message_hub.update_info('best_score', np.float64(0.5))
    runner.message_hub.update_info('recall', np.linspace(0, 1, 3))
    runner.train()
    return runner


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path: Path):
    whole = train(tmp_path / 'whole', 4, resume=False)
    train(tmp_path / 'parts', 2, resume=False)
    resumed = train(tmp_path / 'parts', 4, resume=True)
    assert resumed.iter == whole.iter == 16
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], weight)
    history = resumed.message_hub.get_scalar('train/loss')
    assert isinstance(history, HistoryBuffer)
    assert np.array_equal(history.data[0], whole.message_hub.get_scalar('train/loss').data[0])
    assert history.statistics('mean') == history.mean()


def save(obj: Any, path: Path) -> Path:
    torch.save(obj, path)
    return path


@pytest.mark.parametrize('value', [np.float64(1.5), np.float32(1.5), np.int64(3), np.bool_(True), np.arange(3),
                                   np.ones((2, 3), np.float16), np.zeros(1, np.uint8)], ids=repr)
def test_numbers_are_read(value: Any, tmp_path: Path):
    read = torch.load(save(value, tmp_path / 'value.pth'), weights_only=True)
    assert type(read) is type(value) and read.dtype == value.dtype and np.array_equal(read, value)


@pytest.mark.parametrize('old', ['numpy.core', 'numpy._core'])
def test_names_of_both_numpy_versions_are_read(old: str, tmp_path: Path):
    """A checkpoint written beside the other major version names other modules."""
    here = np.empty(0).__reduce__()[0].__module__.rsplit('.', 1)[0]
    path = save(dict(a=np.arange(3.0), b=np.float64(2)), tmp_path / 'value.pth')
    _rewrite_pickle(path, here.encode(), old.encode())
    read = torch.load(path, weights_only=True)
    assert read['a'].tolist() == [0.0, 1.0, 2.0] and read['b'] == 2


class Call:
    """Pickles as the call of a function."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Any, tuple]:
        return self.call


@pytest.mark.parametrize('malicious', [
    Call(exec, 'raise SystemExit("executed")'),
    Call(eval, '1 + 1'),
    Call(__import__, 'os'),
    Call(getattr, np.ndarray, 'tofile'),
    Call(getattr, HistoryBuffer, '__init__'),
    Call(getattr, HistoryBuffer, '__subclasses__'),
    Call(getattr, HistoryBuffer, '_set_default_statistics'),
    Call(getattr, HistoryBuffer([1], [1]), 'data'),
    Call(HistoryBuffer.mean, HistoryBuffer([1], [1])),
    Scores([1], [1]),
], ids=lambda m: re.sub(' at 0x.*', '', repr(getattr(m, 'call', m)))[:60])
def test_everything_else_is_refused(malicious: Any, tmp_path: Path):
    path = save(dict(state_dict={}, message_hub=malicious), tmp_path / 'malicious.pth')
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path)


def test_a_malicious_checkpoint_is_not_resumed_from(tmp_path: Path):
    train(tmp_path, 1, resume=False)
    path = tmp_path / 'epoch_1.pth'
    checkpoint = torch.load(path)
    checkpoint['message_hub']['runtime_info']['extra'] = Call(exec, 'raise SystemExit("executed")')
    save(checkpoint, path)
    with pytest.raises(pickle.UnpicklingError):
        train(tmp_path, 2, resume=True)


def test_onedls_mmengine_does_not_read_a_refused_checkpoint_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It tries once as it should and then without the check; this is how, in mmengine's original, too."""
    def read_again(file: str, map_location: Any = None) -> Any:
        try:
            return torch.load(file, map_location=map_location, weights_only=True)
        except pickle.UnpicklingError:
            return torch.load(file, map_location=map_location, weights_only=False)

    path = save(dict(state_dict={}, extra=Call(exec, 'raise SystemExit("executed")')), tmp_path / 'malicious.pth')
    monkeypatch.setattr(checkpoint, '_safe_torch_load', read_again, raising=False)
    with pytest.raises(SystemExit, match='executed'):
        checkpoint._safe_torch_load(str(path), map_location='cpu')
    read_checkpoints_once()
    with pytest.raises(pickle.UnpicklingError) as refused:
        checkpoint._safe_torch_load(str(path), map_location='cpu')
    assert describe(refused.value) == ('the checkpoint is damaged or holds more than weights: it names exec, which is '
                                       'not run')
    with pytest.raises(pickle.UnpicklingError):
        checkpoint.load_checkpoint(nn.Linear(1, 1), str(path))


def test_only_classes_and_pure_constructors_are_allowed():
    names = {name for _, name in _checkpoint_globals()}
    assert not {name for name in names if name.startswith('builtins.')} - {'builtins.getattr'}
    assert getattr not in [function for function, _ in _checkpoint_globals()]


def _rewrite_pickle(path: Path, old: bytes, new: bytes) -> None:
    """Replace a module's name in the pickle within a checkpoint."""
    with zipfile.ZipFile(path) as archive:
        files = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for info, content in files.items():
            archive.writestr(info, content.replace(old, new) if info.filename.endswith('data.pkl') else content)
