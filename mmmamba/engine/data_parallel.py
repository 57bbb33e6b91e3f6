"""The detector of a run with several processes: how they exchange gradients, and who normalises a batch together."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODEL_WRAPPERS
from torch import distributed, nn

from mmmamba.errors import InputError


@MODEL_WRAPPERS.register_module()
class CheckedDataParallel(MMDistributedDataParallel):
    """mmengine's ``MMDistributedDataParallel`` with two settings for runs on many GPUs.

    It is what ``model_wrapper_cfg`` describes if it names no type.

    Args:
        module: The detector.
        gradient_dtype: ``'float32'``, or ``'bfloat16'``, in which the gradients are sent and summed over the
            processes: half the bytes, with 8 bits of precision. They are float32 before and after.
        sync_bn_group: How many consecutive processes normalise their images together, where the detector has SyncBN;
            None is all of them. A group on one machine sends nothing over the network.
        **settings: PyTorch's, such as ``bucket_cap_mb`` and ``find_unused_parameters``.

    Raises:
        InputError: One of the two cannot be used here, or the detector has SyncBN, which needs GPUs, on a CPU.
    """

    def __init__(self, module: nn.Module, gradient_dtype: str = 'float32', sync_bn_group: int | None = None,
                 **settings: Any) -> None:
        if gradient_dtype not in ('float32', 'bfloat16'):
            raise InputError(f"model_wrapper_cfg.gradient_dtype must be 'float32' or 'bfloat16', not "
                             f'{gradient_dtype!r}')
        norms = _sync_norms(module)
        if norms:
            self._require_gpu(module)
        if sync_bn_group is not None:
            _check_group(sync_bn_group, norms)
        super().__init__(module, **settings)
        if gradient_dtype == 'bfloat16':
            self.register_comm_hook(None, _average_in_bfloat16)
        self._sync_bn_group = distributed.new_subgroups(sync_bn_group)[0] if sync_bn_group else None

    @staticmethod
    def _require_gpu(module: nn.Module) -> None:
        if next(module.parameters()).device.type == 'cpu':
            raise InputError('SyncBN needs GPUs: without one, leave out sync_bn, and set norm_cfg.type=BN where the '
                             'model has SyncBN')

    def train(self, mode: bool = True) -> CheckedDataParallel:
        """Changes the mode, as every module does, and has SyncBN use the groups."""
        if self._sync_bn_group is not None:
            # Not earlier: EMAHook copies the detector before the training, and a group cannot be copied.
            for norm in _sync_norms(self.module):
                norm.process_group = self._sync_bn_group
        return super().train(mode)


def _check_group(size: int, norms: list[nn.SyncBatchNorm]) -> None:
    if not norms:
        raise InputError('model_wrapper_cfg.sync_bn_group is for a model with SyncBN: set sync_bn=torch as well')
    processes = distributed.get_world_size()
    if size < 1 or processes % size:
        raise InputError(f'model_wrapper_cfg.sync_bn_group must divide the number of processes, {processes}; it is '
                         f'{size}')


def _sync_norms(module: nn.Module) -> list[nn.SyncBatchNorm]:
    return [norm for norm in module.modules() if isinstance(norm, nn.SyncBatchNorm)]


def _average_in_bfloat16(group: distributed.ProcessGroup | None, bucket):  # PyTorch reads annotations, not as texts
    """Averages a bucket of gradients over the processes; PyTorch's own such hook refuses to run without NCCL."""
    gradients = bucket.buffer()
    sent = gradients.div_(distributed.get_world_size(group)).to(torch.bfloat16)
    summed = distributed.all_reduce(sent, group=group, async_op=True).get_future()
    return summed.then(lambda future: gradients.copy_(future.value()[0]))
