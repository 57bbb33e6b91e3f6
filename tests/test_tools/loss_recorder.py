"""A hook for tests: the loss of every iteration, averaged over the processes, in losses.json of the work dir."""
from __future__ import annotations

import json
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import Hook


@HOOKS.register_module()
class LossRecorder(Hook):

    def __init__(self) -> None:
        self.losses: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        loss = outputs['loss'].detach().clone()
        all_reduce(loss, op='mean')
        self.losses.append(loss.item())
        if is_main_process():
            Path(runner.work_dir, 'losses.json').write_text(json.dumps(self.losses))
