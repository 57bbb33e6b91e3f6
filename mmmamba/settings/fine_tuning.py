"""Training that goes on from another detector's weights, with parts that stay as they are."""
from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from torch import nn

from mmmamba.errors import InputError
from mmmamba.model_config import drop_pretrained
from mmmamba.zoo import locate_weights


def with_weights(cfg: Config, checkpoint: str) -> Config:
    """Returns a config whose training starts from other weights, as far as they fit (``FineTuneHook``).

    Pretrained weights that the config names, which these would replace, are left out.

    Args:
        cfg: Not changed.
        checkpoint: What :func:`mmmamba.zoo.find_weights` takes: a detector's or a backbone's.

    Raises:
        InputError: No such file, and no weights of that name.
    """
    locate_weights(checkpoint)
    cfg = copy.deepcopy(cfg)
    drop_pretrained(cfg.model)
    cfg.load_from = None
    hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') != 'FineTuneHook']
    cfg.custom_hooks = [*hooks, dict(type='FineTuneHook', checkpoint=checkpoint)]
    return cfg


def with_frozen(cfg: Config, stages: int | None = None, trained: bool = False) -> Config:
    """Returns a config that trains neither the backbone's stem nor some stages, whose norms keep their statistics.

    Args:
        cfg: With a backbone that has ``frozen_stages``, as ours and mmdet's; not changed.
        stages: The first so many, after the stem; None for all. In plain backbones (Vim) these are blocks.
        trained: Whether the model's weights are another run's.

    Raises:
        InputError: The backbone has fewer stages, or cannot freeze any; or its weights are random, so that it would
            never learn anything.
    """
    cfg = copy.deepcopy(cfg)
    backbone = cfg.model.get('backbone') or ConfigDict()
    kind = MODELS.get(backbone.type) if isinstance(backbone.get('type'), str) else backbone.get('type')
    if kind is None or 'frozen_stages' not in inspect.signature(kind).parameters:
        raise InputError(f'the backbone {backbone.get("type")} has no stages that can be frozen')
    most = _number_of_stages(backbone)
    if stages is not None and not 0 <= stages <= most:
        raise InputError(f'the backbone {backbone.type} has {most} stages to freeze, got {stages}')
    trained |= any(hook.get('type') == 'FineTuneHook' for hook in cfg.get('custom_hooks') or [])
    if not (trained or cfg.get('load_from') or cfg.get('resume') or 'Pretrained' in str(backbone.get('init_cfg'))):
        raise InputError('a frozen backbone needs trained weights, and the config names none: add --weights FILE')
    backbone.frozen_stages = most if stages is None else stages
    return cfg


def _number_of_stages(config: ConfigDict) -> int:
    config = copy.deepcopy(config)
    config.pop('init_cfg', None)
    backbone: Any = build_without_memory(config)
    if isinstance(getattr(backbone, 'num_stages', None), int):
        return backbone.num_stages  # ours, and ResNets
    if isinstance(getattr(backbone, 'layers', None), list):
        return len(backbone.layers) - 1  # CSPDarknet's and CSPNeXt's names of modules, the stem first
    return len(backbone.stages)  # Swin's


def build_without_memory(config: ConfigDict) -> nn.Module:
    """Builds a module whose tensors have shapes and no values; one that asks for values is built with them."""
    try:
        with torch.device('meta'):
            return MODELS.build(copy.deepcopy(config))
    except (NotImplementedError, RuntimeError):
        return MODELS.build(copy.deepcopy(config))
