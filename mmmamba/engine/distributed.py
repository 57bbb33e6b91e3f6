"""Several processes on machines without a GPU."""
from __future__ import annotations

import torch
from mmengine.config import Config
from torch import distributed

from mmmamba.errors import InputError


def prepare_distributed(cfg: Config, launcher: str) -> None:
    """Lets mmengine's launchers run several processes on CPUs, over gloo.

    With a GPU there is nothing to do. Without one, mmengine would still select a CUDA device, both when it sets the
    process group up and when it wraps the model; so the group is made here, and the wrapper told to name no device.

    Args:
        cfg: The runner's config; ``model_wrapper_cfg`` is set where it is needed.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        InputError: Another launcher than torchrun on a machine without a GPU.
    """
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise InputError(f'without a GPU, several processes need --launcher pytorch (torchrun), not {launcher}')
    distributed.init_process_group('gloo')
    cfg.setdefault('model_wrapper_cfg', dict(
        type='MMDistributedDataParallel',
        device_ids=None,
        broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
