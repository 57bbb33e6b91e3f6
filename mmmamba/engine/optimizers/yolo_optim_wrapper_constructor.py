"""The three parameter groups of the YOLOv8 recipe, extended to state-space blocks."""
from __future__ import annotations

from typing import Any

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import nn

from mmmamba.errors import InputError

# What parametrises the scan's dynamics: decaying these would pull every channel towards one time scale.
_SCAN_PARAMETERS = ('A_logs', 'A_log', 'Ds', 'D', 'dt_projs_bias', 'dt_proj.bias')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOOptimWrapperConstructor:
    """Builds an optimizer of three groups, told apart by their ``group_name``.

    ====================  ===========================================================================  ============
    ``group_name``        members                                                                      weight decay
    ====================  ===========================================================================  ============
    ``weights``           matrices and convolution kernels                                             as configured
    ``no_decay``          other vectors (norm weights, layer scales); ``A_log(s)``, ``D(s)``, Δ biases  0
    ``biases``            every other bias; :class:`WarmupLinearLR` warms it up from its own rate      0
    ====================  ===========================================================================  ============

    Parameters that need no gradient (frozen stages, DFL's bins) are left out. A group without members is omitted.
    To scale weight decay with the batch size, as the recipe does, add :class:`ScaleWeightDecayHook`.

    Args:
        optim_wrapper_cfg: ``dict(type=..., optimizer=dict(type='SGD' or any other, lr=..., weight_decay=...), ...)``.
        paramwise_cfg: Must be None; it is here because mmengine passes it to every constructor.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        if paramwise_cfg:
            raise InputError(f'YOLOOptimWrapperConstructor has fixed groups and takes no paramwise_cfg '
                             f'({", ".join(paramwise_cfg)})')
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer'))

    def __call__(self, model: nn.Module):
        members: dict[str, list[nn.Parameter]] = {'weights': [], 'no_decay': [], 'biases': []}
        for name, parameter in getattr(model, 'module', model).named_parameters():
            if parameter.requires_grad:
                members[group_of(name, parameter)].append(parameter)

        groups: list[dict[str, Any]] = [
            {'params': parameters, 'group_name': name} for name, parameters in members.items() if parameters
        ]
        for group in groups:
            if group['group_name'] != 'weights':
                group['weight_decay'] = 0.0
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **self.wrapper_cfg, 'optimizer': optimizer})


def group_of(name: str, parameter: nn.Parameter) -> str:
    """Names the group of a parameter: ``'weights'``, ``'no_decay'`` or ``'biases'``.

    Args:
        name: The parameter's dotted name inside the model.
        parameter: The parameter itself; only its number of dimensions matters.
    """
    if any(name == special or name.endswith('.' + special) for special in _SCAN_PARAMETERS):
        return 'no_decay'
    if name == 'bias' or name.endswith('.bias'):
        return 'biases'
    return 'weights' if parameter.ndim > 1 else 'no_decay'
