"""Compares the head's classes with the data set's."""
from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmmamba.errors import InputError


@HOOKS.register_module()
class ClassCountHook(Hook):
    """Raises an :class:`InputError` where the model's ``bbox_head.num_classes`` is not that of the data set.

    Too few classes in the head index out of bounds, on a GPU without a word of why; too many train in silence.
    """

    def before_train(self, runner: Runner) -> None:
        """Compares before the first iteration."""
        _compare(runner, runner.train_dataloader.dataset)

    def before_val_epoch(self, runner: Runner) -> None:
        """Compares with the validation set."""
        _compare(runner, runner.val_dataloader.dataset)

    def before_test_epoch(self, runner: Runner) -> None:
        """Compares with the test set."""
        _compare(runner, runner.test_dataloader.dataset)


def _compare(runner: Runner, dataset) -> None:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    expected = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
    classes = dataset.metainfo.get('classes')
    if expected is not None and classes is not None and expected != len(classes):
        raise InputError(f'the head has num_classes={expected}, the data set {len(classes)}: {", ".join(classes[:20])}'
                         f'{", …" if len(classes) > 20 else ""} (set model.bbox_head.num_classes)')
