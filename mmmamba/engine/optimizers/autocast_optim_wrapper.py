"""Mixed precision on whatever device the model trains on."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmdet.registry import OPTIM_WRAPPERS
from mmengine.device import get_device
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn

from mmmamba.errors import InputError


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(AmpOptimWrapper):
    """mmengine's ``AmpOptimWrapper`` without its restriction to accelerators: bfloat16 or float16, CPU or GPU.

    float16 needs loss scaling, because its smallest gradients are lost otherwise; bfloat16 has float32's range and is
    not scaled. A step whose scaled gradients overflow is skipped and the scale halved: that is no error.

    Args:
        optimizer: The wrapped optimizer.
        dtype: ``'bfloat16'`` or ``'float16'``.
        accumulative_counts: Iterations whose gradients are summed before a step.
        clip_grad: As in ``OptimWrapper``.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, dtype: str = 'bfloat16', accumulative_counts: int = 1,
                 clip_grad: dict | None = None) -> None:
        if dtype not in ('bfloat16', 'float16'):
            raise InputError(f"dtype must be 'bfloat16' or 'float16', not {dtype!r}")
        # AmpOptimWrapper's own __init__ refuses to run without an accelerator.
        super(AmpOptimWrapper, self).__init__(optimizer, accumulative_counts, clip_grad)
        self.device_type = torch.device(get_device()).type
        self.cast_dtype = getattr(torch, dtype)
        self.loss_scaler = _grad_scaler(self.device_type, enabled=dtype == 'float16')
        self._scale_update_param = None

    def load_state_dict(self, state_dict: dict) -> None:
        """Restores the optimizer's state, and the loss scale if the state is of a run that had one."""
        if not state_dict.get('loss_scaler'):  # of a run in bfloat16; PyTorch refuses it under float16
            state_dict = {key: value for key, value in state_dict.items() if key != 'loss_scaler'}
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocasts, and keeps DDP from synchronising gradients that are still being accumulated."""
        # mmengine.runner.autocast knows only bfloat16 on a CPU; torch's own context knows both.
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device_type, self.cast_dtype):
            yield


def _grad_scaler(device_type: str, enabled: bool):
    if hasattr(torch.amp, 'GradScaler'):  # PyTorch 2.3 and later
        return torch.amp.GradScaler(device_type, enabled=enabled)
    if enabled and device_type != 'cuda':
        raise InputError(f'float16 on {device_type} needs PyTorch 2.3 or later; use bfloat16')
    return torch.cuda.amp.GradScaler(enabled=enabled)
