"""What a resumed run takes from its checkpoint, and what from its config."""
from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, _ParamScheduler
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mmmamba.errors import InputError

_COMPARED = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr',
             'custom_hooks', 'randomness')
_WITHOUT_EFFECT = ('num_workers', 'persistent_workers', 'prefetch_factor', 'pin_memory', 'val_interval', 'val_begin')
_PROGRESS = ('last_step', '_global_step', '_last_value')  # what of a schedule's state changes while it is stepped
_NAMED = 8
_VALUE_LENGTH = 60  # characters
_OPTIMIZER, _DIVIDED = 'optim_wrapper.optimizer.type', 'optim_wrapper.optimizer.optimizer_type'


@HOOKS.register_module()
class ConfigOnResumeHook(Hook):
    """Has a resumed run follow its config, and names each setting that differs from the checkpoint's.

    mmengine restores the optimizer's settings, the schedules and the seed from the checkpoint, without a word where
    the config has others. With this hook, the checkpoint gives weights, averages, the optimizer's state (momentum)
    and the epoch; every setting is the config's. Learning rates and whatever else is scheduled are those that a run
    under this config has at this point: where the schedules differ from the checkpoint's, they are stepped through
    again from the start. Schedules that depend on past validations (``ReduceOnPlateauLR``) cannot be, and are restored
    from the checkpoint together with the optimizer's settings, which a warning says.
    """

    # Before ExactResumeHook and ScaleWeightDecayHook, which read the seed and the groups' settings.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._resumed = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Keeps what the config says before mmengine overwrites it.

        A checkpoint of mmengine's first versions, or one that pretends to be, has a second config, ``meta['config']``,
        which mmengine would run as Python: it is dropped, since a checkpoint may come from anywhere.

        Raises:
            InputError: The checkpoint's optimizer state is not that of the configured optimizer.
        """
        if runner._resume:
            checkpoint['meta'].pop('config', None)
        if not runner._resume or not isinstance(runner.optim_wrapper, OptimWrapper):
            return
        self._resumed = True
        self._changes = _changes(checkpoint['meta'].get('cfg', ''), runner.cfg.pretty_text)
        _require_same_optimizer(runner.optim_wrapper, checkpoint, self._changes)
        self._groups = [{key: value for key, value in group.items() if key != 'params'}
                        for group in runner.optim_wrapper.param_groups]
        self._schedules = [{key: value for key, value in vars(scheduler).items() if key != 'optimizer'}
                           for scheduler in runner.param_schedulers or []]

    def before_train(self, runner: Runner) -> None:
        """Puts the config into force, and says so."""
        if not self._resumed:
            return
        seed = runner.cfg.get('randomness', {}).get('seed')
        if seed is not None and seed != runner.seed:
            runner._randomness_cfg.update(seed=seed)
            runner.set_randomness(**runner._randomness_cfg)

        loop = runner.train_loop
        if isinstance(loop, EpochBasedTrainLoop):  # an epoch may have had another number of iterations
            loop._iter = loop.epoch * len(loop.dataloader) + getattr(loop, 'first_batch', 0)
            runner.optim_wrapper.initialize_count_status(runner.model, loop.iter, loop.max_iters)

        schedulers = runner.param_schedulers or []
        from_config = not any(getattr(scheduler, 'need_val_args', False) for scheduler in schedulers)
        unchanged = self._changes == {} and all(_is_up_to_date(scheduler, configured, loop)
                                                for scheduler, configured in zip(schedulers, self._schedules))
        if from_config and unchanged:
            scheduled = {scheduler.param_name for scheduler in schedulers}
            if any(getattr(scheduler, 'use_betas', False) for scheduler in schedulers):
                scheduled.add('betas')  # Adam's momentum is its first beta
            self._restore_groups(runner.optim_wrapper, kept=scheduled)
        elif from_config:
            self._restore_groups(runner.optim_wrapper)
            for scheduler, configured in zip(schedulers, self._schedules):
                vars(scheduler).update(configured)
            _step_through(schedulers, loop.iter,
                          len(loop.dataloader) if isinstance(loop, EpochBasedTrainLoop) else None)

        if self._changes:
            kept = '' if from_config else ', and so are the learning rate and its schedule, which past validations set'
            runner.logger.warning(
                f'Resumed with other settings than the checkpoint has: {_listed(self._changes)}. The new ones hold; '
                f"weights, optimizer state and epoch ({loop.epoch}) are the checkpoint's{kept}.")
        if loop.iter >= loop.max_iters:
            runner.logger.warning(
                f'Nothing is left to train: the checkpoint has {loop.epoch} epochs, train_cfg.max_epochs is '
                f'{loop.max_epochs}. To go on, raise it: --cfg-options train_cfg.max_epochs=N'
                if isinstance(loop, EpochBasedTrainLoop) else
                f'Nothing is left to train: the checkpoint has {loop.iter} of {loop.max_iters} iterations. To go on, '
                'raise train_cfg.max_iters.')

    def _restore_groups(self, wrapper: OptimWrapper, kept: Collection[str] = ()) -> None:
        """Undoes what mmengine took from the checkpoint into the optimizer's groups, but for the settings ``kept``."""
        for group, configured in zip(wrapper.param_groups, self._groups):
            restored = {key: group[key] for key in ('params', *kept) if key in group}
            group.clear()
            group.update({**configured, **restored})


def _is_up_to_date(scheduler: _ParamScheduler, configured: dict, loop: BaseLoop) -> bool:
    """Tells whether a schedule from the checkpoint is the configured one, at this point of the training."""
    state = vars(scheduler)
    return (all(state.get(key) == value for key, value in configured.items() if key not in _PROGRESS)
            and scheduler.last_step == (loop.epoch if scheduler.by_epoch else loop.iter))


def _step_through(schedulers: list[_ParamScheduler], iterations: int, epoch_length: int | None) -> None:
    """Steps schedules as so many iterations of training do.

    Args:
        schedulers: In the state in which they are built; they change the optimizer's groups.
        iterations: Those trained so far.
        epoch_length: Iterations of an epoch; None where training does not go by epochs.
    """
    by_iteration = [scheduler for scheduler in schedulers if not scheduler.by_epoch]
    by_epoch = [scheduler for scheduler in schedulers if scheduler.by_epoch]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # that the optimizer has not stepped meanwhile
        for iteration in range(1, iterations + 1):
            epoch_ends = epoch_length is not None and iteration % epoch_length == 0
            for scheduler in [*by_iteration, *(by_epoch if epoch_ends else ())]:  # as ParamSchedulerHook orders them
                scheduler.step()


def _require_same_optimizer(wrapper: OptimWrapper, checkpoint: dict,
                            changes: dict[str, tuple[str, str]] | None) -> None:
    advice = ('resume under the old setting, or start anew from the weights: --cfg-options load_from=CHECKPOINT, '
              'without --resume')
    old, new = _optimizers(changes or {})
    if old != new:
        raise InputError(f"the checkpoint's optimizer is {old}, the config's {new}, which cannot take over its state: "
                         f'{advice}')
    saved = [len(group['params']) for group in checkpoint.get('optimizer', {}).get('param_groups', [])]
    built = [len(group['params']) for group in wrapper.optimizer.param_groups]
    if saved and saved != built:
        raise InputError(f"the checkpoint's optimizer has {len(saved)} groups of {sum(saved)} parameters, the "
                         f"config's has {len(built)} of {sum(built)}, or divides them otherwise: the model, what of "
                         f"it is frozen, or the optimizer's constructor differs; {advice}")


def _optimizers(changes: dict[str, tuple[str, str]]) -> list[str]:
    """Names the optimizers of two configs that differ, also of one that is divided among processes."""
    divides = repr('ZeroRedundancyOptimizer')
    kinds, divided = changes.get(_OPTIMIZER, (divides, divides)), changes.get(_DIVIDED, ('', ''))
    return [inner if kind == divides else kind for kind, inner in zip(kinds, divided)]


def _changes(saved: str, current: str) -> dict[str, tuple[str, str]] | None:
    """Compares two configs by their texts, without running them: a checkpoint may come from anywhere.

    Args:
        saved: The checkpoint's config as ``Config.pretty_text``; empty if it has none.
        current: This run's, in the same form.

    Returns:
        Dotted name → (old, new) of every setting that matters for training and differs; None if that is not known.
    """
    if not saved:
        return None
    try:
        old, new = (dict(_settings(text)) for text in (saved, current))
    except SyntaxError:  # a setting that is an object, which has no text to compare
        return None
    return {name: (old.get(name, 'not set'), new.get(name, 'not set')) for name in {**old, **new}
            if old.get(name) != new.get(name) and name.rpartition('.')[2] not in _WITHOUT_EFFECT}


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for statement in ast.parse(text).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in _COMPARED:
                yield from _leaves(name, statement.value)


def _leaves(name: str, node: ast.expr) -> Iterator[tuple[str, str]]:
    """Names what is inside of dicts and lists as ``--cfg-options`` does: ``param_scheduler.0.type``."""
    inner: list[tuple[str, ast.expr]] = []
    if isinstance(node, ast.Call):  # dict(name=value)
        inner = [(str(keyword.arg), keyword.value) for keyword in node.keywords]
    elif isinstance(node, ast.Dict):
        inner = [(ast.unparse(key).strip('\'"'), value) for key, value in zip(node.keys, node.values) if key]
    elif isinstance(node, (ast.List, ast.Tuple)):
        inner = [(str(index), value) for index, value in enumerate(node.elts)]
    if not inner:
        yield name, ast.unparse(node)
    for key, value in inner:
        yield from _leaves(f'{name}.{key}', value)


def _listed(changes: dict[str, tuple[str, str]]) -> str:
    named = [f'{name} {_short(old)} → {_short(new)}' for name, (old, new) in changes.items()]
    more = [f'{len(changes) - _NAMED} more'] if len(changes) > _NAMED else []
    return ', '.join([*named[:_NAMED], *more])


def _short(text: str) -> str:
    return text if len(text) <= _VALUE_LENGTH else f'{text[:_VALUE_LENGTH]}…'
