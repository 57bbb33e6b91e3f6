"""Time and peak memory of a forward pass against the number of pixels: ``python -m benchmarks.forward_scaling``.

Each size runs in a process of its own, whose peak above what stood before the first pass is the pass' own memory. The
last line is the exponent of a power law fitted to time and memory (1: linear in the pixels).
"""
from __future__ import annotations

import argparse
import csv
import platform
import resource
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope

import mmmamba  # noqa: F401  (registers the models)
from benchmarks.timing import Effort, exponent, interleaved

from mmdet.registry import MODELS  # isort: skip  (after mmmamba, which supplies mmcv's operators)

SIDES = (320, 448, 640, 896, 1280)
ROOT = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--config', default=str(ROOT / 'configs/mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py'))
    parser.add_argument('--runs', type=int, default=9, help='passes that are timed, after two that are not')
    parser.add_argument('--csv', help='file to write')
    parser.add_argument('--side', type=int, help='measure this side only, in this process, and print raw numbers')
    return parser.parse_args()


def peak_rss() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(config: str, side: int, runs: int) -> tuple[float, float, float, float]:
    """Median, 20th and 80th percentile of the time (ms), and peak memory of the passes (MiB)."""
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(config).model).eval()
    image = torch.rand(1, 3, side, side)
    before = peak_rss()
    with torch.no_grad():
        timing = interleaved({'model': lambda: model(image)}, image.device, Effort(least=runs, most=runs))['model']
    return *timing, peak_rss() - before


def main() -> None:
    args = parse_args()
    if args.side:
        print(*measure(args.config, args.side, args.runs))
        return
    rows = []
    print(f'{Path(args.config).stem}, batch 1, float32, {torch.get_num_threads()} threads, torch {torch.__version__}')
    print(f'{"side":>6} {"ms":>9} {"p20":>9} {"p80":>9} {"MiB":>9}')
    for side in SIDES:
        command = [sys.executable, '-m', 'benchmarks.forward_scaling', '--config', args.config, '--runs',
                   str(args.runs), '--side', str(side)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append([float(word) for word in done.stdout.split()])
        print(f'{side:6} ' + ' '.join(f'{value:9.1f}' for value in rows[-1]), flush=True)
    pixels, ms, mib = [side * side for side in SIDES], [row[0] for row in rows], [row[3] for row in rows]
    print(f'exponent against pixels: time {exponent(pixels, ms):.2f}, memory {exponent(pixels, mib):.2f}')
    if args.csv:
        with open(args.csv, 'w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['config', 'side', 'ms', 'p20', 'p80', 'mib', 'threads', 'torch', 'machine'])
            for side, row in zip(SIDES, rows):
                writer.writerow([Path(args.config).stem, side, *(round(value, 2) for value in row),
                                 torch.get_num_threads(), torch.__version__, platform.machine()])


if __name__ == '__main__':
    main()
