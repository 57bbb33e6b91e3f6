"""Trains a detector.

    mmmamba train mamba-yolo_t --data FOLDER --epochs 50

A training that was stopped goes on with --resume: weights, averages, the optimizer's momentum and the epoch are the
checkpoint's; all settings are those of this call, and one line names each that was another when the checkpoint was
saved. Where nothing is left to train, that is said, and the exit status is 0. SIGTERM and SIGUSR1 have a checkpoint
saved and end the training, with status 143 and 138.
"""
from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.registry import RUNNERS
from torch import nn

from mmmamba import cli
from mmmamba.commands.options import (
    AUTO,
    add_run_options,
    add_settings,
    add_training_settings,
    learning_rate_note,
    use_device,
    use_largest_batch,
    with_settings,
    with_training_settings,
)
from mmmamba.commands.results import after_training
from mmmamba.engine import (
    CheckedRunner,
    TrainingStopped,
    keep_freed_memory,
    latest_checkpoint,
    prepare_distributed,
)
from mmmamba.engine.console import quiet_config_reading
from mmmamba.engine.loggers import LOGGERS, use_loggers
from mmmamba.errors import InputError, process_rank
from mmmamba.files import from_here, locked
from mmmamba.model_config import merge_options
from mmmamba.package_files import find_config
from mmmamba.recipes import RECIPES, default_work_dir, under_recipe
from mmmamba.settings import load_config

_RUN_ENDS = 10.0  # seconds for which a run that was asked to end may still save


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument(
        '--data',
        metavar='|'.join([*RECIPES, 'PATH']),
        help="another data set than the config's: one of these names, or your own in COCO, YOLO or VOC format")
    parser.add_argument(
        '--work-dir', metavar='FOLDER',
        help='of logs and checkpoints; default: work_dirs/<name of the config>[_<data>]')
    parser.add_argument(
        '--amp',
        nargs='?',
        const='float16' if torch.cuda.is_available() else 'bfloat16',
        choices=['float16', 'bfloat16'],
        help='train in mixed precision; without a name, float16 on a GPU and bfloat16 on a CPU')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help="scale the learning rate by this run's total batch size over the one that the config was made for")
    parser.add_argument(
        '--logger', nargs='+', choices=LOGGERS, default=[], help="where the run's numbers go besides its own files")
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a file, from the latest in the work dir')
    add_settings(parser, measured=True)
    add_training_settings(parser)
    add_run_options(parser)
    return parser.parse_args()


def was_restarted() -> bool:
    """Tells whether Slurm requeued this job, or torchrun restarted it (``--max-restarts``)."""
    return any(int(os.environ.get(name) or 0) for name in ('SLURM_RESTART_COUNT', 'TORCHELASTIC_RESTART_COUNT'))


@contextmanager
def alone_in(work_dir: Path) -> Iterator[None]:
    """Refuses a second training in a work dir while the first one runs: each would overwrite the other's checkpoints.

    Raises:
        InputError: Another training writes there.
    """
    if process_rank():  # the first process writes
        yield
        return
    work_dir.mkdir(parents=True, exist_ok=True)
    lock = work_dir / '.training.lock'
    with ExitStack() as stack:
        stack.callback(_remove_if_empty, work_dir)  # after a mistake in the call
        try:
            stack.enter_context(locked(lock, _RUN_ENDS))
        except TimeoutError:
            # Slurm has started the job elsewhere after a node was lost, whose locks a file server may keep.
            if not was_restarted():
                raise InputError(f'another training writes to {from_here(work_dir)}; --work-dir names another folder '
                                 f'(if none does: remove {from_here(lock)})') from None
            print(f'warning: {from_here(work_dir)} is locked: by a node that is lost?', file=sys.stderr)
        yield


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def use_checkpoint(cfg: Config, named: str) -> None:
    """Has the runner resume from a checkpoint, ``'auto'`` for the last one in the work dir, if it has any."""
    if named == 'auto':
        latest = latest_checkpoint(cfg.work_dir)
        if latest is None:
            return
        named = str(latest)
    elif '://' not in named and not Path(named).is_file():
        raise InputError(f'--resume: no such file: {named}')
    cfg.resume, cfg.load_from = True, named


def how_to_go_on(args: argparse.Namespace, work_dir: str, start: float) -> str:
    """Returns the call that continues a training that was interrupted.

    Args:
        args: Of the interrupted call.
        work_dir: Of the training.
        start: When it began, in seconds since the epoch: a checkpoint that it resumed from holds until it saved one.
    """
    if args.launcher != 'none':
        return 'continue with the same command and --resume'
    saved = Path(work_dir, 'last_checkpoint')
    if args.resume is None:
        words = [*sys.argv, '--resume']
    elif args.resume == 'auto' or not saved.is_file() or saved.stat().st_mtime < start:
        words = sys.argv
    else:
        words = [word for word in sys.argv if word not in (args.resume, f'--resume={args.resume}', '--resume')]
        words = [*words, '--resume']
    return f'continue with: {cli.call_again(words)}'


def trained_parameters(model: nn.Module) -> str:
    """Says how many of a model's parameters are trained."""
    numbers = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trained = sum(number for number, needs_gradient in numbers if needs_gradient)
    return f'{trained / 1e6:.2f} of {sum(number for number, _ in numbers) / 1e6:.2f} million parameters are trained'


def main() -> None:
    args, start = parse_args(), time.time()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    quiet_config_reading()
    args.config = find_config(args.config)
    if args.device:
        use_device(args.device, args.launcher)
    cfg = load_config(args.config)
    if args.data:
        cfg = under_recipe(cfg, args.data)
    cfg = with_training_settings(with_settings(cfg, args), args)
    merge_options(cfg, args.cfg_options or {})
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, args.data)
    if args.amp:
        cfg.optim_wrapper.pop('loss_scale', None)  # AmpOptimWrapper's
        cfg.optim_wrapper.update(type='AutocastOptimWrapper', dtype=args.amp)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError(f'{args.config} has no auto_scale_lr.base_batch_size to scale the learning rate by')
        cfg.auto_scale_lr.enable = True
    use_loggers(cfg, args.logger)
    # So that the copy that the runner leaves in the work dir has the config's name, whatever was made of it above.
    cfg = Config(cfg.to_dict(), cfg_text=cfg.text or '#', filename=str(Path(cfg.work_dir, Path(args.config).name)))
    with alone_in(Path(cfg.work_dir)):
        train(cfg, args, start)


def train(cfg: Config, args: argparse.Namespace, start: float) -> None:
    """Trains as the call says, and prints how it ended.

    Args:
        cfg: The config, with all settings of the call.
        args: Of the call.
        start: When it began, in seconds since the epoch.
    """
    if was_restarted() and latest_checkpoint(cfg.work_dir) is not None:
        args.resume = 'auto'
    if args.resume:
        use_checkpoint(cfg, args.resume)
    notes = []
    if args.batch_size == AUTO and 'train_dataloader.batch_size' not in (args.cfg_options or {}):
        notes.append(use_largest_batch(cfg, args.device, args.launcher))
    if args.lr:
        notes.append(learning_rate_note(cfg))

    if not torch.cuda.is_available():
        keep_freed_memory()
    prepare_distributed(cfg, args.launcher)
    try:
        runner = CheckedRunner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
        # A shared folder may show the first process another checkpoint than the others, which came earlier or later.
        resumed = [runner._resume, runner._load_from]
        broadcast_object_list(resumed)
        runner._resume, runner._load_from = resumed
        if args.resume and not runner._resume:
            runner.logger.warning(f'{cfg.work_dir} has no checkpoint to resume from: training starts from the '
                                  'beginning.')
        if args.freeze is not None:
            notes.append(trained_parameters(runner.model))
        for note in notes:
            runner.logger.info(note, extra={'shown': True})  # on the screen, too
        runner.train()
        if is_main_process():
            print(after_training(runner, time.time() - start))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_go_on(args, cfg.work_dir, start)) from None
    except TrainingStopped as stop:
        if is_main_process():
            saved = f'saved {from_here(stop.checkpoint)}' if stop.checkpoint else 'nothing was trained yet'
            print(f'{stop}: {saved}; {how_to_go_on(args, cfg.work_dir, start)}', file=sys.stderr, flush=True)
        sys.exit(128 + stop.signal)
