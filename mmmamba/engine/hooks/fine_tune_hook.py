"""Training that starts from the weights of a detector of other classes."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from mmdet.registry import HOOKS
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from mmmamba.convert import SYSTEMS, read_checkpoint, system_of
from mmmamba.errors import InputError, first_names
from mmmamba.model_config import set_num_classes
from mmmamba.settings.fine_tuning import build_without_memory
from mmmamba.zoo import find_weights


@HOOKS.register_module()
class FineTuneHook(Hook):
    """Gives a model, before it is trained, the weights of a file that fit it; three lines say which.

    Weights of the same name and shape are taken. Those of the classes are taken for the classes that the file and the
    data set both know by name, wherever these are in the two lists; the others start anew. Where the width of a
    head's class branch depends on the number of classes (``YOLOv8Head``), its convolutions keep as many of their
    channels as there is room for. Weights of any other shape are left out. A resumed run has its own weights already.

    Args:
        checkpoint: A file of mmengine's (its averaged weights, where EMA was on), a bare state dict, or what one of
            the reference implementations has saved; its address, or the name of one that is in the zoo. Nothing in
            it is imported or executed.
    """

    # Before the hooks that look at the weights.
    priority = 'HIGHEST'

    def __init__(self, checkpoint: str) -> None:
        self.checkpoint = checkpoint

    def before_train(self, runner: Runner) -> None:
        """Loads the weights.

        Raises:
            InputError: The file holds no weights, or none for this model.
        """
        if runner._resume:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for line in fine_tune(model, runner.cfg.model, self.checkpoint,
                              runner.train_dataloader.dataset.metainfo['classes']):
            runner.logger.info(line, extra={'shown': True})  # on the screen, too


def fine_tune(model: nn.Module, config: ConfigDict, path: str, classes: Sequence[str]) -> list[str]:
    """Loads what fits of a file into a model.

    Args:
        model: The model (not a DDP wrapper); changed in place.
        config: What it was built from.
        path: The file; see :class:`FineTuneHook`.
        classes: Those that the model is trained for.

    Returns:
        Three lines: how much is loaded, which classes keep their weights, and what starts anew or is not used.

    Raises:
        InputError: As of :meth:`FineTuneHook.before_train`.
    """
    checkpoint = read_checkpoint(find_weights(path))
    weights = {name.removeprefix('module.'): value for name, value in checkpoint.state_dict.items()}
    system = system_of(weights)
    if system in SYSTEMS:
        weights = SYSTEMS[system](checkpoint.state_dict)
    own = model.state_dict()
    in_file = sorted(weights)
    if not own.keys() & weights.keys():  # a backbone's file
        weights = {f'backbone.{name}': value for name, value in weights.items()}

    rows, of_widths = class_tensors(config)
    trained = tuple(checkpoint.meta.get('dataset_meta', {}).get('classes') or ())
    loaded: dict[str, Tensor] = {}
    resized, other_shape = [], []
    kept: set[int] = set()
    for name in own.keys() & weights.keys():
        value = weights[name].to(own[name])
        if name in rows:
            merged = rows[name].merge(name, own[name], value, trained, classes)
            if merged is not None:
                loaded[name] = merged
                kept |= rows[name].kept(own[name], value, trained, classes).keys()
                continue
        elif value.shape == own[name].shape:
            loaded[name] = value
            continue
        elif name in of_widths and value.dim() == own[name].dim():
            loaded[name] = _overlap(own[name], value)
            resized.append(name)
            continue
        other_shape.append(f'{name} {tuple(value.shape)}, not {tuple(own[name].shape)}')
    parameters = dict(model.named_parameters())
    number = sum(parameters[name].numel() for name in loaded if name in parameters)
    if not number:
        raise InputError(f'{path}: none of its {len(weights)} weights fits this {type(model).__name__}: it has '
                         f'{first_names(in_file)}, the model {first_names(sorted(own))}')
    model.load_state_dict(loaded, strict=False)

    total = sum(parameter.numel() for parameter in parameters.values())
    origin = f', converted from {system}' if system in SYSTEMS else ''
    return [
        f'weights of {path}{origin}: {len(loaded)} of {len(own)} tensors load, '
        f'{number / 1e6:.2f} of {total / 1e6:.2f} million parameters',
        _of_classes(trained, classes, kept),
        _of_others({
            'resized to the width for this number of classes': sorted(resized),
            'left out, of another shape': sorted(other_shape),
            'start anew, not in the file': [name for name in own if name not in weights],
            'not used': [name for name in weights if name not in own]}),
    ]


@dataclass(frozen=True)
class ClassRows:
    """How the first dimension of a tensor counts classes: ``rows · (classes + others)``.

    Args:
        rows: Of a class: anchors of a location, or sides of a box.
        others: Classes that are none: 1 for the background of a softmax, which is the last.
    """
    rows: int
    others: int

    def merge(self, name: str, own: Tensor, value: Tensor, trained: Sequence[str],
              classes: Sequence[str]) -> Tensor | None:
        """Returns a model's tensor with the rows of a file's; None if that is not one of classes at all."""
        if value.dim() != own.dim() or value.shape[0] % self.rows:
            return None
        merged = own.clone()
        target, source = (self._by_class(name, tensor) for tensor in (merged, value))
        for new, old in self.kept(own, value, trained, classes).items():
            target[new] = _overlap(target[new], source[old])
        for index in range(1, self.others + 1):
            target[-index] = _overlap(target[-index], source[-index])
        return merged

    def kept(self, own: Tensor, value: Tensor, trained: Sequence[str], classes: Sequence[str]) -> dict[int, int]:
        """Returns label → label in the file, of the classes that keep their rows."""
        number = value.shape[0] // self.rows - self.others
        if len(trained) == number:
            return {new: trained.index(name) for new, name in enumerate(classes) if name in trained}
        # Without names, as many classes are taken to be the same ones.
        return {label: label for label in range(number)} if not trained and value.shape == own.shape else {}

    def _by_class(self, name: str, tensor: Tensor) -> Tensor:
        """Returns a view with classes first: (classes, rows, …)."""
        if 'reg' in name:  # boxes of each class (R-CNN), its four sides together
            return tensor.view(-1, self.rows, *tensor.shape[1:])
        return tensor.view(self.rows, -1, *tensor.shape[1:]).transpose(0, 1)  # classes of each anchor


def class_tensors(config: ConfigDict) -> tuple[dict[str, ClassRows], set[str]]:
    """Finds the tensors of a model that have rows for classes, and those whose width depends on their number.

    It is built, without memory, for 1, 2 and 100 classes: what grows by a class has its rows; what grows only with
    many is wide.
    """
    shapes: list[Mapping[str, torch.Size]] = []
    for number in (1, 2, 100):
        model = copy.deepcopy(config)
        set_num_classes(model, number)
        shapes.append({name: tensor.shape for name, tensor in build_without_memory(model).state_dict().items()})
    one, two, many = shapes
    rows = {}
    for name, shape in one.items():
        grown = two[name][0] - shape[0] if shape else 0
        if grown:
            rows[name] = ClassRows(grown, shape[0] // grown - 1)
    return rows, {name for name, shape in one.items() if many[name] != shape and name not in rows}


def _overlap(own: Tensor, value: Tensor) -> Tensor:
    """Returns ``own`` with the values that both tensors have a place for."""
    shared = tuple(slice(min(sides)) for sides in zip(own.shape, value.shape))
    merged = own.clone()
    merged[shared] = value[shared]
    return merged


def _of_classes(trained: Sequence[str], classes: Sequence[str], kept: set[int]) -> str:
    names = [name for index, name in enumerate(classes) if index in kept]
    fresh = [name for index, name in enumerate(classes) if index not in kept]
    if not trained:
        taken = 'taken to be these, in this order' if names else 'all start anew'
        return f'classes: the file does not name its own; {taken}: {first_names(classes, 6)}'
    return (f'classes: {len(names)} of {len(classes)} keep their weights'
            + (f' ({first_names(names, 6)})' if names else '')
            + (f'; start anew: {first_names(fresh, 6)}' if fresh else ''))


def _of_others(kinds: Mapping[str, Sequence[str]]) -> str:
    said = [f'{len(names)} {what} ({first_names(names)})' for what, names in kinds.items() if names]
    return f'tensors: {"; ".join(said) or "none starts anew, and none of the file is left over"}'
