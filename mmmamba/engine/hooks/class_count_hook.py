"""Compares the heads' classes with the data set's, and what the config's file says with what is run."""
from __future__ import annotations

from collections.abc import Iterator

from mmdet.engine.hooks import NumClassCheckHook
from mmdet.registry import HOOKS
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmmamba.errors import InputError
from mmmamba.settings.config_file import require_carried_over

_CLASSES_NAMED = 20


@HOOKS.register_module()
class ClassCountHook(NumClassCheckHook):
    """mmdet's ``NumClassCheckHook`` for training, validation and testing, with one line that says what to set.

    Every module that has a ``num_classes`` is compared, in one-stage, two-stage and query-based detectors, but for

    - backbones (a VGG's or a timm model's are ImageNet's) and region proposal networks, which know one class;
    - heads that are ``class_agnostic``, and those of semantic and panoptic segmentation, which count stuff as well;
    - detectors that read their classes from a text.

    Too few classes in a head index out of bounds, on a GPU without a word of why; too many train in silence.

    A run whose config was read by other tools than ours is refused, if what its file sets at its top level
    (``data_root``, for instance) does not reach the data sets, as mmengine leaves it.
    """

    def before_run(self, runner: Runner) -> None:
        """Compares the config with its file."""
        require_carried_over(runner.cfg)

    def before_train(self, runner: Runner) -> None:
        """Compares before the first iteration."""
        self._check_head(runner, 'train')

    def before_test_epoch(self, runner: Runner) -> None:
        """Compares with the test set."""
        self._check_head(runner, 'test')

    def _check_head(self, runner: Runner, mode: str) -> None:
        dataset = getattr(runner, f'{mode}_dataloader').dataset
        classes = getattr(dataset, 'metainfo', {}).get('classes')
        if classes is None:
            return
        if isinstance(classes, str):
            raise InputError(f"the {mode} set's classes are the text {classes!r}: write ({classes!r},), with a comma")
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        wrong = [(name, number) for name, number in _class_counts(model) if number != len(classes)]
        if wrong:
            heads = ', '.join(f'{name} has num_classes={number}' for name, number in wrong)
            settings = ', '.join(f'model.{name}.num_classes' for name, _ in wrong)
            raise InputError(f'{heads}, the {mode} set {len(classes)}: {", ".join(classes[:_CLASSES_NAMED])}'
                             f'{", …" if len(classes) > _CLASSES_NAMED else ""} (set {settings} to {len(classes)})')


def _class_counts(model: nn.Module) -> Iterator[tuple[str, int]]:
    """Finds the modules that have to know as many classes as the data set has: their names and their numbers."""
    # Imported here, since mmdet's models may be imported only after mmmamba.
    from mmdet.models.roi_heads.mask_heads import FusedSemanticHead
    from mmdet.models.seg_heads.base_semantic_head import BaseSemanticHead
    from mmdet.models.seg_heads.panoptic_fusion_heads import BasePanopticFusionHead

    if hasattr(model, 'language_model'):
        return
    for name, module in model.named_modules():
        number = getattr(module, 'num_classes', None)
        other = isinstance(module, (FusedSemanticHead, BaseSemanticHead, BasePanopticFusionHead))
        if (isinstance(number, int) and not {'backbone', 'rpn_head'} & set(name.split('.'))
                and not getattr(module, 'class_agnostic', False) and not other):
            yield name.removeprefix('module.'), number
