"""Learning rates that decay from the head of a plain backbone to its patches."""
from __future__ import annotations

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.optim import DefaultOptimWrapperConstructor
from torch import nn

from mmmamba.errors import InputError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's constructor, with rates that decay over the layers of a plain backbone (BEiT, arXiv 2106.08254)::

        lr of layer k = lr · rate^(depth + 1 - k)

    Layer 0 are patches and positions, layer i + 1 is block i, and all other parameters of the model keep the whole
    rate. Which layer a parameter is of, the backbone says by ``get_layer_depth``, as ours and mmpretrain's ViTs do.

    Args:
        optim_wrapper_cfg: As for mmengine's.
        paramwise_cfg: ``layer_decay_rate``, in (0, 1], and mmengine's own keys, such as ``norm_decay_mult`` and
            ``custom_keys``.

    Raises:
        InputError: No such rate, or, when called with a model, one whose backbone has no layers.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.rate = paramwise_cfg.get('layer_decay_rate')
        if not isinstance(self.rate, (int, float)) or not 0 < self.rate <= 1:
            raise InputError(f'LayerDecayOptimWrapperConstructor needs paramwise_cfg.layer_decay_rate in (0, 1], got '
                             f'{self.rate}')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '',
                   is_dcn_module: float | None = None) -> None:
        """Adds a group for each parameter, as mmengine does, and scales the rates of the whole model's groups."""
        super().add_params(params, module, prefix, is_dcn_module)
        if prefix:
            return  # of a part of the model: mmengine calls this for each of its modules
        layer_of = getattr(getattr(module, 'backbone', None), 'get_layer_depth', None)
        if layer_of is None:
            raise InputError('layer_decay_rate needs a model with a plain backbone, one that has get_layer_depth')
        names = {parameter: name for name, parameter in module.named_parameters()}
        for group in params:
            layer, layers = layer_of(names[group['params'][0]], 'backbone.')
            group['lr'] = group.get('lr', self.base_lr) * self.rate**(layers - 1 - layer)
