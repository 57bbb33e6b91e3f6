"""Learning rate and momentum of the YOLOv8 recipe, in closed form.

Every value is a function of the iteration's index alone, so a resumed run continues on exactly the same values, and a
run whose length is changed when it is resumed follows the new length.
"""
from __future__ import annotations

from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler.momentum_scheduler import MomentumSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import OptimizerType

from mmmamba.errors import InputError


class _WarmupScheduler(_ParamScheduler):
    """Interpolates linearly, iteration by iteration, from :meth:`_start` to :meth:`_target`; then stays on the target.

    Args:
        optimizer: The optimizer, or the wrapper of it.
        param_name: The key in the optimizer's groups.
        epoch_length: Iterations of an epoch; mmengine supplies it.
        warmup_epochs: Epochs of warm-up; 0 for none, and it may be a fraction.
        min_warmup_iters: Iterations that the warm-up lasts at least, however short the epochs are.
    """

    def __init__(self, optimizer: OptimizerType, param_name: str, epoch_length: int, warmup_epochs: float,
                 min_warmup_iters: int) -> None:
        if epoch_length <= 0:
            raise InputError(f'{type(self).__name__}: an epoch has {epoch_length} iterations; is the data set empty?')
        if warmup_epochs < 0:
            raise InputError(f'{type(self).__name__}: warmup_epochs is {warmup_epochs} but must not be negative')
        self.epoch_length = epoch_length
        self.warmup_iters = max(round(warmup_epochs * epoch_length), min_warmup_iters) if warmup_epochs else 0
        super().__init__(optimizer, param_name, by_epoch=False)

    def state_dict(self) -> dict:
        """Returns how far the schedule is; its form comes from the config."""
        return {key: getattr(self, key) for key in ('last_step', '_global_step', 'base_values', '_last_value')}

    def _get_value(self) -> list[float]:
        progress = min(self.last_step / self.warmup_iters, 1.0) if self.warmup_iters else 1.0
        values = []
        for group, base in zip(self.optimizer.param_groups, self.base_values):
            target = self._target(base)
            values.append(target + (1.0 - progress) * (self._start(group) - target))
        return values

    def _start(self, group: dict) -> float:
        raise NotImplementedError

    def _target(self, base: float) -> float:
        raise NotImplementedError


@PARAM_SCHEDULERS.register_module()
class WarmupLinearLR(_WarmupScheduler):
    r"""Linear decay by epochs with a linear warm-up by iterations.

    In epoch :math:`e` of :math:`E`, the target is :math:`\eta_e = \eta (1 - (1 - f) e / E)`; in iteration :math:`i` of
    a warm-up of :math:`W`, the rate is :math:`s + (\eta_e - s) \min(i / W, 1)`, where :math:`s` is ``bias_start_lr``
    for the group named ``biases`` and 0 for the others. :math:`\eta` is the optimizer's rate when training starts, so
    that ``--auto-scale-lr`` scales the whole schedule (but not ``bias_start_lr``).

    Write it with ``convert_to_iter_based=True``; mmengine then supplies ``epoch_length``, and ``end``, the number of
    epochs, where it is not given.

    Args:
        optimizer, epoch_length, warmup_epochs, min_warmup_iters: See :class:`_WarmupScheduler`.
        max_epochs: :math:`E`; ``end`` in a config.
        end_factor: :math:`f`, the share of the initial rate that is left at the end.
        bias_start_lr: The rate that biases start from; 0 for Adam and its kin.
    """

    def __init__(self, optimizer: OptimizerType, max_epochs: int, epoch_length: int, end_factor: float = 0.01,
                 warmup_epochs: float = 3.0, min_warmup_iters: int = 0, bias_start_lr: float = 0.1) -> None:
        self.max_epochs = max_epochs
        self.end_factor = end_factor
        self.bias_start_lr = bias_start_lr
        super().__init__(optimizer, 'lr', epoch_length, warmup_epochs, min_warmup_iters)

    @classmethod
    def build_iter_from_epoch(cls, optimizer: OptimizerType, end: int, epoch_length: int, end_factor: float = 0.01,
                              warmup_epochs: float = 3.0, min_warmup_iters: int = 0, bias_start_lr: float = 0.1,
                              by_epoch: bool = True) -> WarmupLinearLR:
        """Builds it for ``convert_to_iter_based=True``; ``by_epoch`` says that ``end`` counts epochs."""
        if not by_epoch:
            raise InputError('WarmupLinearLR counts `end` in epochs; leave out by_epoch=False')
        return cls(optimizer, end, epoch_length, end_factor, warmup_epochs, min_warmup_iters, bias_start_lr)

    def _start(self, group: dict) -> float:
        return self.bias_start_lr if group.get('group_name') == 'biases' else 0.0

    def _target(self, base: float) -> float:
        epoch = min(self.last_step // self.epoch_length, self.max_epochs)
        return base * (1.0 - (1.0 - self.end_factor) * epoch / self.max_epochs)


@PARAM_SCHEDULERS.register_module()
class WarmupMomentum(MomentumSchedulerMixin, _WarmupScheduler):
    """Raises the momentum (Adam's first beta) linearly from ``start`` to the optimizer's own during the warm-up.

    Write it with ``convert_to_iter_based=True`` and the same warm-up as :class:`WarmupLinearLR`.

    Args:
        optimizer, epoch_length, warmup_epochs, min_warmup_iters: See :class:`_WarmupScheduler`. The optimizer must
            have a momentum or betas.
        start: The momentum of the first iteration.
    """

    def __init__(self, optimizer: OptimizerType, epoch_length: int, start: float = 0.8, warmup_epochs: float = 3.0,
                 min_warmup_iters: int = 0) -> None:
        self.start = start
        # The mixin names the parameter, which mypy cannot see.
        super().__init__(optimizer, epoch_length, warmup_epochs, min_warmup_iters)  # type: ignore[call-arg]

    @classmethod
    def build_iter_from_epoch(cls, optimizer: OptimizerType, epoch_length: int, start: float = 0.8,
                              warmup_epochs: float = 3.0, min_warmup_iters: int = 0, end: int = 0) -> WarmupMomentum:
        """Builds it for ``convert_to_iter_based=True``; mmengine always adds ``end``, which means nothing here."""
        del end
        return cls(optimizer, epoch_length, start, warmup_epochs, min_warmup_iters)

    def _start(self, group: dict) -> float:
        return self.start

    def _target(self, base: float) -> float:
        return base
