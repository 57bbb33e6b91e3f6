"""Settings by name: the options that commands share, and what they do to a config."""
from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmengine.config import Config, DictAction

from mmmamba.analysis.batch_size import SHARE, largest_batch
from mmmamba.cli import require_device
from mmmamba.commands.argument_types import names, seed, whole
from mmmamba.errors import InputError
from mmmamba.settings import (
    with_batch_size,
    with_classes,
    with_early_stopping,
    with_epochs,
    with_frozen,
    with_image_size,
    with_learning_rate,
    with_weights,
    with_workers,
)
from mmmamba.settings.image_size import STRIDE

AUTO = 'auto'
_PATIENCE = 10


def add_settings(parser: argparse.ArgumentParser, measured: bool = False, device: bool = True) -> None:
    """Adds the options for images and data.

    Args:
        parser: It is changed.
        measured: Whether the command can measure its largest batch (``--batch-size auto``).
        device: Whether it runs on one device.
    """
    group = parser.add_argument_group('settings by name', 'instead of those in the config; --cfg-options comes last')
    add_image_size(group, 'images are fitted into these')
    if measured:
        group.add_argument('--batch-size', type=_batch_size, metavar='N|auto',
                           help='images of a process and step; auto: the largest power of two that fits into '
                           f'{100 * SHARE:.0f} %% of the free memory, measured')
    else:
        group.add_argument('--batch-size', type=whole, metavar='N', help='images of a process and step')
    group.add_argument('--workers', type=int, metavar='N', help='processes of each data loader')
    group.add_argument('--classes', type=names, metavar='A,B', help="some of the data set's classes, with commas")
    if device:
        group.add_argument('--device', help='cpu, cuda or cuda:N; default: cuda if there is one')


def add_image_size(parser: argparse._ActionsContainer, effect: str) -> None:
    """Adds ``--image-size N`` or ``H W``; ``effect`` is the end of its help."""
    parser.add_argument('--image-size', nargs='+', type=_side, metavar='N',
                        help=f'N, or H W: height and width, multiples of {STRIDE}; {effect}')


def image_size_of(args: argparse.Namespace) -> tuple[int, int] | None:
    """Returns the width and height that ``--image-size`` has, if it was given.

    Raises:
        InputError: It has more than two sides.
    """
    sides = args.image_size
    if sides is None:
        return None
    if len(sides) > 2:
        raise InputError(f'--image-size takes one side or two (H W), got {len(sides)}')
    return sides[-1], sides[0]


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of every command that runs a config itself: other settings, and what launchers pass."""
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers')


def add_training_settings(parser: argparse.ArgumentParser) -> None:
    """Adds the options of a single training."""
    group = parser.add_argument_group('training by name')
    group.add_argument('--epochs', type=int, metavar='N',
                       help='length; warm-up, steps of the rate, the end of mosaic and EMA follow')
    group.add_argument('--lr', type=float, metavar='X', help='learning rate')
    group.add_argument('--weights', metavar='FILE|NAME',
                       help='start from a detector or a backbone, in a file or listed by mmmamba zoo; says what of it '
                            'is loaded')
    group.add_argument('--freeze', type=_stages, metavar='backbone|N',
                       help='train neither the stem nor any stage of the backbone, or not the first N')
    group.add_argument('--early-stop', nargs='?', type=int, const=_PATIENCE, metavar='PATIENCE',
                       help='end when AP has not improved in so many validations; without a number, in %(const)s')
    group.add_argument('--seed', type=seed, metavar='N', help='of initial weights, order and augmentation')


def with_settings(cfg: Config, args: argparse.Namespace, loaders: Sequence[str] = ('train_dataloader',)) -> Config:
    """Returns a config with the options of :func:`add_settings` that were given.

    Args:
        cfg: Not changed.
        args: Of a parser with these options; ``--batch-size auto`` and ``--device`` are no settings of a config.
        loaders: Those that ``--batch-size`` is for.

    Raises:
        InputError: A value that this config cannot have; the line begins with the option.
    """
    cfg = _with(cfg, '--image-size', lambda cfg, size: with_image_size(cfg, *size), image_size_of(args))
    if args.batch_size != AUTO:
        cfg = _with(cfg, '--batch-size', with_batch_size, args.batch_size, loaders)
    cfg = _with(cfg, '--workers', with_workers, args.workers)
    return _with(cfg, '--classes', with_classes, args.classes)


def with_training_settings(cfg: Config, args: argparse.Namespace) -> Config:
    """Returns a config with the options of :func:`add_training_settings` that were given; as :func:`with_settings`."""
    cfg = _with(cfg, '--epochs', with_epochs, args.epochs)
    cfg = _with(cfg, '--lr', with_learning_rate, args.lr)
    cfg = _with(cfg, '--weights', with_weights, args.weights)
    cfg = _with(cfg, '--early-stop', with_early_stopping, args.early_stop)
    if args.freeze is not None:
        stages = None if args.freeze == 'backbone' else args.freeze
        cfg = _with(cfg, '--freeze', lambda cfg, _: with_frozen(cfg, stages, bool(args.resume)), args.freeze)
    if args.seed is not None:
        cfg.setdefault('randomness', {}).update(seed=args.seed)
    return cfg


def use_device(name: str, launcher: str = 'none') -> None:
    """Has mmengine's runner work on a device.

    Raises:
        InputError: There is none of that name, or several processes have one each.
    """
    if launcher != 'none':
        raise InputError(f'--device {name}: with --launcher {launcher}, each process has a device of its own '
                         '(CUDA_VISIBLE_DEVICES says which there are)')
    require_device(name)
    from mmengine.device import utils

    utils.DEVICE = name.partition(':')[0]  # what mmengine has chosen when it was imported
    if ':' in name:
        torch.cuda.set_device(name)


def use_largest_batch(cfg: Config, device: str | None, launcher: str = 'none') -> str:
    """Measures the largest batch that fits, and puts it into a config, in place.

    Returns:
        What was measured, in a line.

    Raises:
        InputError: There are several processes, or no batch fits.
    """
    if launcher != 'none':
        raise InputError('--batch-size auto is measured for one process: measure without --launcher, then name the '
                         'batch of a process')
    fit = largest_batch(cfg, device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    cfg.train_dataloader.batch_size = fit.images
    return f'--batch-size auto: {fit}'


def learning_rate_note(cfg: Config) -> str:
    """Says for which batch a config's learning rate was made, if it says so."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    note = f"; the config's is for {base} images a step, which --auto-scale-lr would scale" if base else ''
    return f'learning rate {cfg.optim_wrapper.optimizer.lr:g} for {cfg.train_dataloader.batch_size} images{note}'


def _with(cfg: Config, option: str, function: Callable[..., Config], value: Any, *more: Any) -> Config:
    """Returns a config with an option's value, if it has one."""
    if value is None:
        return cfg
    try:
        return function(cfg, value, *more)
    except InputError as error:
        raise InputError(f'{option}: {error}') from error


def _side(text: str) -> int:
    side = whole(text)
    if side % STRIDE:
        lower = side // STRIDE * STRIDE
        near = f'{lower} or {lower + STRIDE}' if lower else f'{STRIDE}'
        raise argparse.ArgumentTypeError(f'must be a multiple of {STRIDE}, such as {near}, not {side}')
    return side


def _batch_size(text: str) -> int | str:
    return text if text == AUTO else whole(text)


def _stages(text: str) -> int | str:
    if text != 'backbone' and not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be backbone or a number of stages, not {text!r}')
    return text if text == 'backbone' else int(text)
