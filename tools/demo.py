"""Trains, tests and draws a detector on a small data set, through tools/train.py and tools/test.py.

Without --data, the data set is composed on the spot from handwriting and photographs that ship in Python packages.
"""
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from mmmamba.analysis.drawing import draw_curves, draw_predictions
from mmmamba.cli import run
from mmmamba.datasets.composed import Composition, compose
from mmmamba.datasets.formats import announce, config_for_data, find_data
from mmmamba.errors import InputError
from mmmamba.settings import load_config

ROOT = Path(__file__).resolve().parents[1]
TABLE = (('AP', 'bbox_mAP'), ('AP50', 'bbox_mAP_50'), ('AP75', 'bbox_mAP_75'), ('AP small', 'bbox_mAP_s'),
         ('AP medium', 'bbox_mAP_m'), ('AP large', 'bbox_mAP_l'))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=Path, help='your own data set, in COCO, YOLO or VOC format')
    parser.add_argument('--config', type=Path, default=ROOT / 'configs' / 'mamba_yolo' / 'mamba-yolo_t_demo.py',
                        help='default: %(default)s')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs') / 'demo',
                        help='a folder named by the time is made in it; default: %(default)s')
    return parser.parse_args()


def call_tool(name: str, *arguments: object) -> None:
    """Runs one of our tools as a user would, in its own process, its output on ours."""
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, arguments)]
    print('$', ' '.join(command), flush=True)
    status = subprocess.run(command, check=False).returncode
    if status:
        raise InputError(f'{name} ended with status {status}; its last lines above say why')


def main() -> None:
    args = parse_args()
    start = time.monotonic()
    data = args.data
    if data is None:
        data = args.work_dir / 'data'
        print(f'Composing the data set in {data}', flush=True)
        compose(data, Composition())
    folder = find_data(data)
    announce(folder)

    out = args.work_dir / time.strftime('%Y%m%d_%H%M%S')
    out.mkdir(parents=True)
    config = out / 'config.py'
    config_for_data(load_config(args.config), folder).dump(config)
    call_tool('train.py', config, '--work-dir', out / 'train')
    checkpoint = Path((out / 'train' / 'last_checkpoint').read_text().strip())
    call_tool('test.py', config, checkpoint, '--work-dir', out / 'test', '--out', out / 'results')

    draw_predictions(folder.splits['val'].annotations, folder.splits['val'].images, out / 'results.bbox.json',
                     out / 'predictions.png')
    draw_curves(next((out / 'train').glob('*/vis_data/scalars.json')), out / 'curves.png')
    table = coco_table(out / 'results.metrics.json')
    (out / 'coco_table.txt').write_text(table, encoding='utf-8')
    print(f"""
{table}
checkpoint   {checkpoint}
table        {out / 'coco_table.txt'}
predictions  {out / 'predictions.png'}
curves       {out / 'curves.png'}
config       {config}
minutes      {(time.monotonic() - start) / 60:.1f}""")


def coco_table(metrics: Path) -> str:
    values = json.loads(metrics.read_text(encoding='utf-8'))
    # Without a single detection there are no metrics; -1 means a size that no object has.
    rows = [(name, values.get(f'coco/{key}', 0.0)) for name, key in TABLE]
    return ''.join(f'{name:10s} {value:6.3f}\n' for name, value in rows if value is not None and value >= 0)


if __name__ == '__main__':
    run(main)
