"""What detectors cost as the input grows, as in Figure 4 of Mamba YOLO: ``scaling.py [CONFIG ...] --out FOLDER``.

For every config, square input, dtype and pass: peak memory, FLOPs with the scans' own, latency and images/s, of one
random image with random weights. ``forward`` is the network up to its raw outputs, without decoding and suppression
(of the R-CNN family: the heads on 1000 boxes and 100 masks, without RoIAlign); ``training`` a whole step: loss on
random boxes, backward, SGD. float16 and bfloat16 are autocast's.

Memory is the peak above what stood before the first pass (weights, in training their gradients, the image, libraries),
on CUDA of PyTorch's allocator, on a CPU of the process; a pass on a small image goes before. Each measurement has a
process of its own. What does not fit is recorded with the reason, and the sweep goes on.

FOLDER gets scaling.csv, after every measurement; scaling.png; and exponents.md, the exponents of power laws fitted to
memory, FLOPs and latency against the number of pixels (1: linear, 2: quadratic) with their standard errors. The same
command once more measures only what is missing and what failed; rows of another machine, version or model are refused.
"""
from __future__ import annotations

import argparse
from itertools import product
from pathlib import Path
from tempfile import TemporaryFile

import torch

from mmmamba.analysis import model_config
from mmmamba.analysis.measure import Row, available_memory
from mmmamba.analysis.measurement import DTYPES, PASSES, Task
from mmmamba.analysis.scaling import draw_scaling, exponent_table, sweep
from mmmamba.cli import run
from mmmamba.errors import InputError

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
DEFAULT_CONFIGS = ('mamba_yolo/mamba-yolo_l_8xb64-300e_coco.py', 'dino/dino-4scale_r50_8xb2-12e_coco.py',
                   'yolov8/yolov8_l_8xb64-300e_coco.py')
SIDES = (320, 448, 640, 896, 1280, 1600, 2048)
FREE_SHARE = 0.9
LEGEND = """Exponents of the growth with the number of pixels (1: linear, 2: quadratic) and their standard errors, by
least squares on logarithms over the sides in the column. Memory is the peak above the weights; FLOPs are those of a
forward pass, scans included. With mmcv-lite (scaling.csv says which mmcv it was), deformable attention runs in plain
PyTorch, on GPUs too, which costs DINO more than full mmcv's operator does. Published (Figure 4 of arXiv 2406.05835),
in words alone: Mamba YOLO-L grows linearly, DINO-R50 quadratically."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='*', default=[str(CONFIGS / name) for name in DEFAULT_CONFIGS],
                        metavar='CONFIG', help='default: Mamba YOLO-L, DINO-R50, YOLOv8-L')
    parser.add_argument('--sides', type=int, nargs='+', default=SIDES, metavar='PIXELS',
                        help=f'default: {" ".join(map(str, SIDES))}')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/scaling'), metavar='FOLDER',
                        help='default: %(default)s')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cuda' if torch.cuda.is_available() else 'cpu',
                        help='default here: %(default)s')
    parser.add_argument('--dtypes', nargs='+', choices=DTYPES, default=['float32'], help='default: float32')
    parser.add_argument('--passes', nargs='+', choices=PASSES, default=PASSES, help='default: both')
    parser.add_argument('--runs', type=int, default=7, help='passes that are timed, after three; default: %(default)s')
    parser.add_argument('--memory-limit', type=float, metavar='GIB',
                        help='what needs more does not fit; default: on a CPU 90 %% of what is free, on CUDA all')
    parser.add_argument('--timeout', type=float, default=1800, metavar='S',
                        help='seconds; a measurement that takes longer does not fit; default: %(default)s')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='default here: %(default)s')
    return parser.parse_args()


def tasks_of(args: argparse.Namespace) -> list[Task]:
    """Returns what to measure, small inputs first.

    Raises:
        InputError: An argument or a config cannot be used.
    """
    if min(args.sides) < 1:
        raise InputError(f'--sides must be positive, got {min(args.sides)}')
    for name, least in (('runs', 2), ('threads', 1)):
        if getattr(args, name) < least:
            raise InputError(f'--{name} must be at least {least}, got {getattr(args, name)}')
    for name in ('timeout', 'memory_limit'):
        if getattr(args, name) is not None and getattr(args, name) <= 0:
            raise InputError(f'--{name.replace("_", "-")} must be positive, got {getattr(args, name):g}')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise InputError('--device cuda: this PyTorch sees no CUDA device')
    for config in args.configs:
        model_config(config)
    if len({Path(config).stem for config in args.configs}) < len(args.configs):
        raise InputError('two configs have the same file name, by which the rows are told apart')

    limit = None if args.memory_limit is None else int(args.memory_limit * 2**30)
    if limit is None and args.device == 'cpu':
        limit = int(FREE_SHARE * available_memory())  # or the kernel would end processes, not only ours
    return [Task(str(config), side, dtype, pass_, args.device, args.threads, args.runs, limit)
            for config, dtype, pass_, side in product(args.configs, args.dtypes, args.passes, sorted(set(args.sides)))]


def require_writable(folder: Path) -> None:
    """Makes the folder, and a file in it that goes again.

    Raises:
        InputError: That cannot be done.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f'--out {folder}: {error.strerror}') from error


def line(row: Row) -> str:
    if row['failure']:
        return row['failure']
    gflops = f'{float(row["linear_gflops"]):.4g} + {float(row["scan_gflops"]):.4g} GFLOPs'
    times = f'{float(row["median_ms"]):.4g} ms ({float(row["p20_ms"]):.4g} to {float(row["p80_ms"]):.4g})'
    return f'{float(row["memory_mib"]):.4g} MiB, {gflops}, {times}, {float(row["images_per_s"]):.3g} images/s'


def main() -> None:
    args = parse_args()
    tasks = tasks_of(args)
    require_writable(args.out)
    done = 0

    def say(task: Task, row: Row, measured: bool) -> None:
        nonlocal done
        done += 1
        print(f'[{done}/{len(tasks)}] {row["config"]} {task.dtype} {task.pass_} {task.side}²: {line(row)}'
              + ('' if measured else ' (measured before)'), flush=True)

    limit = tasks[0].memory_limit
    print(f'{len(tasks)} measurements on {args.device}, CPU threads: {args.threads}'
          + (f', at most {limit / 2**30:.4g} GiB' if limit else '') + f', into {args.out}', flush=True)
    rows = sweep(tasks, args.out / 'scaling.csv', args.timeout, say)
    draw_scaling(rows, args.out / 'scaling.png')
    table = exponent_table(rows)
    (args.out / 'exponents.md').write_text(f'{LEGEND}\n\n{table}\n', encoding='utf-8')
    print(f'\n{LEGEND}\n\n{table}\n\nIn {args.out}: scaling.csv, scaling.png, exponents.md')


if __name__ == '__main__':
    run(main)
