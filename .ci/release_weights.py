"""``make release-weights``: a trained Mamba YOLO-T to go with a release, dist/mamba-yolo_t_bccd.pth.

Trains the config on BCCD from random weights (``BCCD=path/to/bccd``; 20 to 60 minutes on two cores; repeat a call that
was stopped, and it resumes). Then it rounds the EMA's weights to float16 and tests them before and after. If the file
is too large, or rounding changes AP too much, nothing is written to dist, and the exit status is 2.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from mmmamba.cli import run
from mmmamba.convert import publish
from mmmamba.errors import InputError
from mmmamba.version import __version__

CONFIG = 'mamba-yolo_t_1xb16-30e_bccd'
WEIGHTS = Path('dist/mamba-yolo_t_bccd.pth')
WORK = Path(f'work_dirs/release_weights_{__version__}')
FACTS = dict(
    licence='Apache-2.0',
    trained_on='BCCD, https://github.com/Shenggan/BCCD_Dataset (MIT licence)',
    config=CONFIG,
)
LARGEST = 12_000_000
"""Bytes of the file."""
MOST_LOST = 0.002
"""Of AP, by rounding to float16."""


def call(command: str, *arguments: object) -> None:
    words = [sys.executable, '-m', 'mmmamba', command, CONFIG, *map(str, arguments)]
    status = subprocess.run(words, check=False).returncode
    if status:
        sys.exit(status)  # the command has said why


def average_precision(checkpoint: Path) -> float:
    results = WORK / checkpoint.stem
    call('test', checkpoint, '--work-dir', WORK / 'test', '--out', results)
    return json.loads(results.with_suffix('.metrics.json').read_text(encoding='utf-8'))['coco/bbox_mAP']


def main() -> None:
    call('train', '--work-dir', WORK, '--seed', 0, '--resume')
    trained = WORK / Path((WORK / 'last_checkpoint').read_text(encoding='utf-8').strip()).name
    before = average_precision(trained)
    published = WORK / WEIGHTS.name
    publish(trained, published, half=True, ap=before, **FACTS)
    after, size = average_precision(published), published.stat().st_size
    found = f'{WEIGHTS}: {size / 1e6:.1f} MB, AP {after:.3f} ({before:.3f} before rounding to float16)'
    if size > LARGEST or not abs(after - before) <= MOST_LOST:
        raise InputError(f'{found}; it may have {LARGEST / 1e6:g} MB, and AP may differ by {MOST_LOST:g}')
    WEIGHTS.parent.mkdir(exist_ok=True)
    os.replace(published, WEIGHTS)
    print(found)


if __name__ == '__main__':
    run(main)
