"""Checkpoints that survive a full disk and a crash while saving."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmmamba.files import write_atomically


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` (same arguments), in an order in which something good is always on the disk.

    mmengine deletes the outdated checkpoint, then writes the new one in place, then rewrites ``last_checkpoint``: a
    failure on the way leaves a torn file, or nothing. Here the new file is completed under another name and renamed,
    ``last_checkpoint`` is replaced in the same way, and only then are outdated files deleted. On a full disk the run
    stops with one clear line and can resume from the previous checkpoint. Local folders only; a ``backend_args`` of
    one's own is used as it is.
    """

    def before_train(self, runner: Runner) -> None:
        """Chooses the atomic file backend, unless the config chose another."""
        if self.backend_args is None and self.file_client_args is None:
            self.backend_args = {'backend': 'atomic_local'}
        super().before_train(runner)

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        outdated = []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

        filename = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, filename)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(self.out_dir, filename, save_optimizer=self.save_optimizer,
                               save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
                               backend_args=self.backend_args, **self.args)
        if is_main_process():
            write_atomically(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt.encode())
            for old_step in outdated:
                self._remove(self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(old_step)))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        with self._deferred_removal():
            super()._save_best_checkpoint(runner, metrics)

    def _remove(self, path: str) -> None:
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)

    @contextmanager
    def _deferred_removal(self) -> Iterator[None]:
        """Collects what mmengine would delete, and deletes it when everything new has been saved."""
        backend = self.file_backend
        outdated: list[str] = []
        self.file_backend = _KeepingBackend(backend, outdated)
        try:
            yield
        finally:
            self.file_backend = backend
        for path in outdated:
            self._remove(path)


class _KeepingBackend:
    """A file backend that only notes down what it is asked to remove."""

    def __init__(self, backend, noted: list[str]) -> None:
        self._backend = backend
        self._noted = noted

    def remove(self, path: str) -> None:
        self._noted.append(path)

    def __getattr__(self, name: str):
        return getattr(self._backend, name)
