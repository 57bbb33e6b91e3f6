"""Trains a detector: ``python tools/train.py CONFIG``."""
from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
from mmengine.config import Config, DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import mmmamba  # noqa: F401  (makes mmdet run without compiled mmcv, and registers the models)
from mmmamba import cli
from mmmamba.conditions import CONDITIONS, default_work_dir, under_conditions
from mmmamba.engine import keep_freed_memory, prepare_distributed
from mmmamba.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Train a detector.')
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--data',
        metavar='|'.join([*CONDITIONS, 'FOLDER']),
        help="another data set than the config's, under that set's recipe (see mmmamba.conditions)")
    parser.add_argument(
        '--work-dir', help='folder of logs and checkpoints; default: work_dirs/<name of the config>[_<data>]')
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
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='continue from a checkpoint; without a file, from the latest in the work dir')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by some launchers')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg = Config.fromfile(args.config)
    if args.data:
        cfg = under_conditions(cfg, args.data, ROOT / 'configs')
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, args.data)
    if args.amp:
        cfg.optim_wrapper.pop('loss_scale', None)  # AmpOptimWrapper's
        cfg.optim_wrapper.update(type='AutocastOptimWrapper', dtype=args.amp)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise InputError(f'{args.config} has no auto_scale_lr.base_batch_size to scale the learning rate by')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume

    if not torch.cuda.is_available():
        keep_freed_memory()
    prepare_distributed(cfg, args.launcher)
    runner = Runner.from_cfg(cfg) if 'runner_type' not in cfg else RUNNERS.build(cfg)
    runner.train()


if __name__ == '__main__':
    cli.run(main)
