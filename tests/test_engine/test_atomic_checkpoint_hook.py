"""Whatever happens while saving, the last checkpoint that was announced can be loaded."""
import builtins
import errno
import io
import os
import resource

import pytest
import torch
from mmengine.runner import Runner

from mmmamba.errors import InputError
from mmmamba.files import write_atomically

import toy_training  # isort: skip  (this folder's)


@pytest.fixture
def full_disk(monkeypatch):
    """A function after whose call files can take 1000 bytes more and then fail as they do on a full disk."""
    real_open = builtins.open

    class FullFile(io.FileIO):
        def write(self, content):
            super().write(bytes(content)[:1000])
            raise OSError(errno.ENOSPC, 'No space left on device')

    def fail_from_now_on():
        def guarded_open(path, mode='r', *args, **kwargs):
            return FullFile(path, mode) if mode == 'wb' else real_open(path, mode, *args, **kwargs)
        monkeypatch.setattr(builtins, 'open', guarded_open)
    return fail_from_now_on


def test_write_replaces_the_whole_file(tmp_path):
    path = tmp_path / 'folder' / 'file'
    for content in (b'first', b'second'):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ['file']


def test_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    write_atomically(tmp_path / 'file', b'old')
    full_disk()
    with pytest.raises(InputError, match=r'no space left to save .*file'):
        write_atomically(tmp_path / 'file', b'new' * 1000)
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']
    assert (tmp_path / 'file').read_bytes() == b'old'


def test_size_limit_of_the_system_counts_as_full(tmp_path):
    write_atomically(tmp_path / 'file', b'old')
    child = os.fork()  # for a limit, once lowered, stays
    if child == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_atomically(tmp_path / 'file', bytes(5000))
        except InputError as error:
            os._exit(0 if 'no space left to save' in str(error) else 1)
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ['file']
    assert (tmp_path / 'file').read_bytes() == b'old'


def test_run_survives_a_disk_that_fills_up(shared_coco_folder, tmp_path, full_disk):
    from mmdet.registry import HOOKS
    from mmengine.hooks import Hook

    class FillHook(Hook):
        def before_save_checkpoint(self, runner, checkpoint):
            if runner.epoch == 2:
                full_disk()

    HOOKS.register_module(module=FillHook)
    try:
        work_dir = tmp_path / 'full'
        cfg = toy_training.config(shared_coco_folder, work_dir, workers=0, hooks=(dict(type='FillHook'),))
        cfg.default_hooks.checkpoint.max_keep_ckpts = 1
        with pytest.raises(InputError, match=r'no space left to save .*epoch_3\.pth'):
            Runner.from_cfg(cfg).train()
    finally:
        HOOKS.module_dict.pop('FillHook')
    # Only one checkpoint is to be kept, but the old one goes only when the new one stands.
    assert [path.name for path in work_dir.glob('*.pth*')] == ['epoch_2.pth']
    assert not list(work_dir.glob('.*'))
    assert (work_dir / 'last_checkpoint').read_text() == str(work_dir / 'epoch_2.pth')
    assert torch.load(work_dir / 'epoch_2.pth')['meta']['epoch'] == 2


def test_outdated_checkpoints_go(shared_coco_folder, tmp_path):
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'kept', workers=0)
    Runner.from_cfg(cfg).train()
    assert sorted(path.name for path in (tmp_path / 'kept').glob('*.pth*')) == ['epoch_3.pth', 'epoch_4.pth']


def test_best_checkpoint_is_replaced_only_by_a_complete_one(shared_coco_folder, tmp_path, full_disk):
    cfg = toy_training.config(shared_coco_folder, tmp_path / 'best', workers=0, epochs=1)
    cfg.default_hooks.checkpoint.update(save_best='score', rule='greater')
    runner = Runner.from_cfg(cfg)
    runner.train()
    hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'AtomicCheckpointHook')
    hook.after_val_epoch(runner, {'score': 0.5})
    first = tmp_path / 'best' / 'best_score_epoch_1.pth'
    assert first.exists()
    runner.train_loop._epoch = 2
    hook.after_val_epoch(runner, {'score': 0.6})
    second = tmp_path / 'best' / 'best_score_epoch_2.pth'
    assert second.exists() and not first.exists()
    runner.train_loop._epoch = 3
    full_disk()
    with pytest.raises(InputError, match='no space left'):
        hook.after_val_epoch(runner, {'score': 0.7})
    assert [path.name for path in (tmp_path / 'best').glob('best*')] == [second.name]
    assert torch.load(second)['state_dict']
