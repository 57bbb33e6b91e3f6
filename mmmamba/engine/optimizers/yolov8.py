"""The optimizer of the YOLOv8 recipe, extended to state-space blocks: its parameter groups and its weight decay."""
from __future__ import annotations

from mmdet.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.hooks import Hook
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from mmengine.runner import Runner
from torch import nn

from mmmamba.errors import InputError

# What parametrises the scan's dynamics: decaying these would pull every channel towards one time scale.
_SCAN_PARAMETERS = ('.A_logs', '.A_log', '.Ds', '.D', '.dt_projs_bias', '.dt_proj.bias')


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class YOLOOptimWrapperConstructor:
    """Builds an optimizer of three groups, told apart by their ``group_name``.

    ==============  ============================================================================  =============
    ``group_name``  members                                                                       weight decay
    ==============  ============================================================================  =============
    ``weights``     matrices and convolution kernels                                              as configured
    ``no_decay``    other vectors (norm weights, layer scales); ``A_log(s)``, ``D(s)``, Δ biases  0
    ``biases``      every other bias; :class:`WarmupLinearLR` warms it up from its own rate       0
    ==============  ============================================================================  =============

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

        groups = [{'params': parameters, 'group_name': name, **({} if name == 'weights' else {'weight_decay': 0.0})}
                  for name, parameters in members.items() if parameters]
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, 'params': groups})
        return OPTIM_WRAPPERS.build({'type': 'OptimWrapper', **self.wrapper_cfg, 'optimizer': optimizer})


def group_of(name: str, parameter: nn.Parameter) -> str:
    """Names the group of a parameter, from its dotted name: ``'weights'``, ``'no_decay'`` or ``'biases'``."""
    if f'.{name}'.endswith(_SCAN_PARAMETERS):
        return 'no_decay'
    if f'.{name}'.endswith('.bias'):
        return 'biases'
    return 'weights' if parameter.ndim > 1 else 'no_decay'


@HOOKS.register_module()
class ScaleWeightDecayHook(Hook):
    """Multiplies every group's weight decay by (images per optimizer step) / ``base_batch_size``, once, at the start.

    Images per step are counted from what really runs: the loader's batch size × processes × ``accumulative_counts``.
    Unlike ``auto_scale_lr`` this is part of the YOLOv8 recipe and always on: its learning rate is meant for any batch,
    its weight decay for a batch of 64.

    Args:
        base_batch_size: The batch that the configured weight decay is meant for.
    """

    def __init__(self, base_batch_size: int = 64) -> None:
        self.base_batch_size = base_batch_size

    def before_train(self, runner: Runner) -> None:
        """Scales from the configured value, which is kept in the groups, so that resuming does not scale twice."""
        loader = runner.train_dataloader
        batch_size = loader.batch_size if loader.batch_size is not None else loader.batch_sampler.batch_size
        images = batch_size * runner.world_size * runner.optim_wrapper._accumulative_counts
        for group in runner.optim_wrapper.optimizer.param_groups:
            base = group.setdefault('initial_weight_decay', group['weight_decay'])
            group['weight_decay'] = base * images / self.base_batch_size
        runner.logger.info(f'Weight decay is scaled by {images}/{self.base_batch_size}: images per optimizer step '
                           f'over the batch it was configured for.')
