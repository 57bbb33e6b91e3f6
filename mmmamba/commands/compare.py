"""Trains and tests detectors under the same conditions, and writes one report.

    mmmamba compare CONFIG ... --data bccd --seeds 0 1 2 --epochs 6 --from-scratch

The models are the configs'; images, augmentation, schedule, optimizer and evaluation are those of the data set (in
``configs/_base_``), the same for all. Each run has a folder of its own below --work-dir. Repeat a call that was
stopped, and it goes on where it was; runs that failed are tried again. The report (markdown, HTML, PNG, CSV) has a row
for each detector, for one that failed with the reason.

The exit status is 0 if every run has a result; 1 if one has none, because it failed, was stopped, or its config cannot
be built (the report is written all the same); 2 for a mistake in the call or the data set; and 130 after Ctrl-C.
"""
from __future__ import annotations

import argparse
import copy
import os
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmmamba import cli
from mmmamba.analysis.compare.evaluation import read_truth
from mmmamba.analysis.compare.plan import epochs_within, facts, run_config, truth_of, with_seed
from mmmamba.analysis.compare.report import require_matplotlib, write_report
from mmmamba.analysis.compare.results import AP, Comparison, RunResult
from mmmamba.analysis.compare.runs import Launch, OtherConfigError, Run, execute_all, launches, read_run
from mmmamba.commands.options import add_settings, with_settings
from mmmamba.errors import InputError
from mmmamba.package_files import TOOLS, find_config, model_name
from mmmamba.recipes import RECIPES, data_name, find_folder
from mmmamba.settings import class_names

RUNS_MISSING = 1  # exit status


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='CONFIG', help='config files, or names of ours: mamba-yolo_t')
    parser.add_argument('--data', required=True, metavar='|'.join([*RECIPES, 'PATH']),
                        help='data set and recipe; or a path of your own data in COCO, YOLO or VOC format')
    parser.add_argument('--seeds', type=int, nargs='+', metavar='N', default=[0],
                        help='a run of each detector with each; default: 0')
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument('--epochs', type=int, metavar='N', help="default: those of the data set's recipe")
    budget.add_argument('--minutes', type=float, metavar='N', help='as many epochs as fit into these minutes of wall '
                        'clock, validation not counted; a few iterations of each detector are timed first')
    parser.add_argument('--from-scratch', action='store_true', help='leave pretrained weights out')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help="settings instead of the recipe's, for all runs")
    add_settings(parser, device=False)
    parser.add_argument('--jobs', type=int, metavar='N', default=1,
                        help='runs at a time, on one GPU each or a share of the CPU')
    parser.add_argument('--slurm', metavar='PARTITION', help='run on a GPU of this Slurm partition, through srun')
    parser.add_argument('--work-dir', type=Path, metavar='FOLDER', help='default: work_dirs/compare/<data>')
    parser.add_argument('--report', type=Path, metavar='FOLDER', help='default: <work dir>/report')
    parser.add_argument('--report-only', action='store_true', help='report what has finished, and run nothing')
    parser.add_argument('--no-pictures', action='store_true',
                        help='leave images out of the report: the licence of a data set may not let you pass them on')
    parser.add_argument('--cpu-time', action='store_true',
                        help='show CPU time instead of wall clock: for a machine that does other work as well')
    args = parser.parse_args()
    if args.jobs < 1 or (args.minutes is not None and not args.minutes > 0):
        parser.error('--jobs and --minutes must be positive')
    args.work_dir = args.work_dir or Path('work_dirs', 'compare', data_name(args.data))
    args.report = args.report or args.work_dir / 'report'
    return args


def main() -> None:
    args = parse_args()
    try:
        compare(args)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f'the same call goes on where it was: {cli.call_again(sys.argv)}') from None


def compare(args: argparse.Namespace) -> None:
    """Trains what is not trained yet, and writes the report."""
    names = detector_names(args)
    find_folder(args.data)
    require_matplotlib()
    init_default_scope('mmdet')
    places = launches(TOOLS, args.jobs, args.slurm)
    # Seeds are outermost: a comparison that was stopped has all detectors with its first seeds.
    runs = [Run(name, seed, args.work_dir / name / f'seed{seed}') for seed in args.seeds for name in names]

    configs, parameters, broken = {}, {}, {}
    for path, name in zip(args.configs, names):
        try:
            cfg = make_config(args, path, name, None if args.report_only else places[0])
            detector = MODELS.build(copy.deepcopy(cfg.model))  # detectors write into their configs
        except OtherConfigError:
            raise
        except Exception as error:  # whatever a broken config raises: the others shall run
            broken[name] = cli.describe(error) or f'{type(error).__name__}: {error}'
            continue
        configs[name] = cfg
        parameters[name] = sum(parameter.numel() for parameter in detector.parameters())
        text = cfg.pretty_text
        for run in runs:
            if run.name == name and (run.finished or not args.report_only):
                run.prepare(with_seed(text, run.seed))
    if not configs:
        raise InputError(f'none of the configs can be built; the first: {next(iter(broken.values()))}')
    any_config = next(iter(configs.values()))
    (annotations, images), classes = truth_of(any_config), class_names(any_config)
    read_truth(annotations, classes)  # what is wrong with it shall be said before the training
    conditions = facts(configs, data_name(args.data), args.seeds, scratch=args.from_scratch, jobs=args.jobs)

    if args.minutes is not None:
        conditions['epochs'] += f', as many as fit into {args.minutes:g} minutes of training'

    if not args.report_only:
        waiting = [run for run in runs if run.name in configs and not run.finished]
        print(f'{len(runs)} runs, {len(waiting)} to do', flush=True)
        execute_all(waiting, places, say)

    comparison = Comparison(
        title=f'{len(names)} detectors on {data_name(args.data)}',
        command=command(args.data),
        conditions=conditions,
        annotations=annotations,
        images=images,
        runs=tuple(RunResult(run.name, run.seed, f'failed: {broken[run.name]}') if run.name in broken
                   else read_run(run, parameters[run.name]) for run in runs),
        classes=classes)
    write_report(comparison, args.report, pictures=not args.no_pictures, cpu_time=args.cpu_time)
    print(f'report: {args.report / "README.md"}, {args.report / "index.html"}')
    without = [f'{run.name}, seed {run.seed}' for run in comparison.runs if not run.finished]
    if without:
        print(f'{len(without)} of {len(runs)} runs have no result: {"; ".join(without)}', file=sys.stderr)
        sys.exit(RUNS_MISSING)


def detector_names(args: argparse.Namespace) -> list[str]:
    """Names the detectors, and so their folders, by the files, without the recipes that they were made for.

    Raises:
        InputError: A file is not there, or a name or a seed is given twice.
    """
    args.configs = [find_config(name) for name in args.configs]
    names = [model_name(path) for path in args.configs]
    for what, values in (('detector', names), ('seed', args.seeds)):
        twice = [value for value, times in Counter(values).items() if times > 1]
        if twice:
            raise InputError(f'two runs would go to the same folder: {what} {twice[0]} is named twice')
    return names


def make_config(args: argparse.Namespace, path: Path, name: str, place: Launch | None) -> Config:
    """Makes a detector's config under the comparison's conditions and within its budget."""

    def config(epochs: int | None) -> Config:
        return run_config(path, args.data, args.work_dir / 'truth.json', epochs=epochs,
                          scratch=args.from_scratch, options=args.cfg_options,
                          settings=partial(with_settings, args=args))

    if args.minutes is None:
        return config(args.epochs)
    return config(epochs_within(args.minutes, config(None), args.work_dir / name, place))


def command(data: str) -> str:
    """Returns this call, with the variables that it depends on; where data lies is the reader's affair."""
    root = data.upper()
    variables = [f'{root}=path/to/{data}'] if root in os.environ else []
    if 'OMP_NUM_THREADS' in os.environ:
        variables.append(f'OMP_NUM_THREADS={os.environ["OMP_NUM_THREADS"]}')
    return ' '.join([*variables, cli.command([word for word in sys.argv if word != '--report-only'])])


def say(run: Run, minutes: float) -> None:
    """Prints a line about a run that has ended."""
    if run.finished:
        result = f'AP {read_run(run, None).metrics[AP]:.3f}'
    else:
        result = f'FAILED: {run.failure}' if run.failure else 'stopped'
    print(f'{run.name}, seed {run.seed}: {result} ({minutes:.1f} minutes)', flush=True)
