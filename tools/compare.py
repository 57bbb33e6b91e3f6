"""Trains and tests detectors under the same conditions, and writes one report.

    python tools/compare.py CONFIG… --data bccd --seeds 0 1 2 --epochs 6 --from-scratch

The models are the configs'; images, augmentation, schedule, optimizer and evaluation are those of the data set
(``configs/_base_``), for all of them. Each run has a folder of its own below --work-dir. A call that was stopped goes on
where it was when it is repeated; runs that failed are tried again. The report (markdown, HTML, PNG, CSV) lies in
``report/``; a run that failed is a row that says why.
"""
from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path

from mmengine.config import DictAction

import mmmamba  # noqa: F401  (makes mmdet run without compiled mmcv, and registers the models)
from mmmamba import cli
from mmmamba.comparison.plan import run_config, with_seed
from mmmamba.comparison.run import Run, read_metrics
from mmmamba.comparison.schedule import devices, execute_all
from mmmamba.conditions import CONDITIONS
from mmmamba.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', type=Path, metavar='CONFIG')
    parser.add_argument('--data', required=True, metavar='|'.join([*CONDITIONS, 'FOLDER']),
                        help='data set and recipe; or a folder with train/, val/ and annotations/{train,val}.json')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0], help='default: 0')
    parser.add_argument('--epochs', type=int, help="default: those of the data set's recipe")
    parser.add_argument('--from-scratch', action='store_true', help='leave pretrained weights out')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help="settings in place of the recipe's, for all runs")
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/compare/<data>')
    parser.add_argument('--jobs', type=int, default=1, help='runs at a time: on GPUs, or as shares of the CPU')
    parser.add_argument('--slurm', metavar='PARTITION', help="submit each run to a Slurm cluster's partition, on one GPU")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    names = [path.stem for path in args.configs]
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated or len(set(args.seeds)) < len(args.seeds):
        raise InputError(f'named twice: {", ".join(repeated) or "a seed"}')
    if args.jobs < 1:
        raise InputError(f'--jobs must be positive, got {args.jobs}')
    work_dir = args.work_dir or Path('work_dirs', 'compare', Path(args.data).name)

    runs = []
    for seed in args.seeds:  # outermost, so that what was stopped has all detectors with the first seeds
        runs += [Run(name, seed, work_dir / name / f'seed{seed}') for name in names]
    broken = {}
    for path, name in zip(args.configs, names):
        if not path.is_file():
            raise InputError(f'no such file: {path}')
        own = [run for run in runs if run.name == name]
        try:
            cfg = run_config(path, args.data, ROOT / 'configs', epochs=args.epochs, scratch=args.from_scratch,
                             options=args.cfg_options)
        except InputError:
            raise
        except Exception as error:  # whatever a broken config raises
            broken[name] = f'{path}: {type(error).__name__}: {error}'
            for run in own:
                run.fail(broken[name])
        else:
            for run in own:
                run.prepare(with_seed(cfg, run.seed))

    waiting = [run for run in runs if not run.finished and run.name not in broken]
    print(f'{len(runs)} runs: {sum(run.finished for run in runs)} finished, {len(waiting)} to do, '
          f'{len(runs) - len(waiting) - sum(run.finished for run in runs)} broken configs', flush=True)
    prefix = []
    if args.slurm:
        prefix = ['srun', f'--partition={args.slurm}', '--ntasks=1', '--gres=gpu:1', '--kill-on-bad-exit=1']
    execute_all(waiting, devices(args.jobs, bool(args.slurm)), ROOT / 'tools', prefix, say)


def say(run: Run, minutes: float) -> None:
    result = f'AP {read_metrics(run).get("coco/bbox_mAP", 0.0):.3f}' if run.finished else f'FAILED: {run.failure}'
    print(f'{run.name} seed {run.seed}: {result} ({minutes:.1f} min)', flush=True)


if __name__ == '__main__':
    cli.run(main)
