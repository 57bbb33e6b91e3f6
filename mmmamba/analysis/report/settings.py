"""What a report tells of the detector and of where it was tested."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import nn

from mmmamba.analysis.detector import detector_environment
from mmmamba.model_config import parts

_PARTS = ('backbone', 'neck', 'bbox_head', 'rpn_head', 'roi_head', 'mask_head')


def settings_of(cfg: Config, model: nn.Module, meta: Mapping[str, Any], data: str) -> dict[str, str]:
    """Lists a detector's parts, its training as far as the checkpoint tells of it, and the environment of the test.

    Args:
        cfg: The config of the test.
        model: The detector, on its device.
        meta: The checkpoint's; may be empty.
        data: The annotation file.
    """
    model_cfg = cfg.model.get('module', cfg.model)  # of test-time augmentation
    detector = ', '.join([model_cfg.type, *(model_cfg[name].type for name in _PARTS if model_cfg.get(name))])
    sizes = [step.scale for step in parts(cfg.test_dataloader.dataset)
             if step.get('type') in ('Resize', 'FixScaleResize') and step.get('scale')]
    parameter = next(model.parameters(), torch.empty(0))
    number = sum(parameter.numel() for parameter in model.parameters())
    settings = {'detector': detector, 'parameters': f'{number / 1e6:.2f} M' if number else '',
                'image size': ' x '.join(map(str, sizes[0])) if sizes else '', 'annotations': data}
    if 'epoch' in meta:
        settings['trained'] = f'{meta["epoch"]} epochs, {meta.get("iter", "?")} iterations'
    optimizer = cfg.get('optim_wrapper', {}).get('optimizer')
    if optimizer and 'epoch' in meta:
        settings['optimizer'] = f'{optimizer.type}, learning rate {optimizer.lr:g}'
        settings['batch'] = f'{cfg.train_dataloader.batch_size} images'
    settings.update(detector_environment(str(parameter.device), torch.get_num_threads()))
    return {name: value for name, value in settings.items() if value}
