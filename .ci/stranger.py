"""``make stranger``: what a stranger does with the wheel on their own data, from an empty folder.

The wheel of this machine is installed in an empty environment, and one data set is written in COCO's, YOLO's and VOC's
format: boxes in all three, masks in the two that have polygons. In each, ``mmmamba`` checks the data, trains for three
epochs, tests, draws, exports, and tests the exported file. All that comes out must be the same in every format, to the
last digit; if it is not, the exit status is not 0, after one line that says what differs.

Prints what each command took, and AP. Takes some 15 minutes on two cores.
"""
from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from empty_environment import EmptyEnvironment, run
from three_formats import WRITERS, Pictures, read_pictures

from mmmamba import cli
from mmmamba.datasets.composed import Composition, compose

COUNTS = {'train': 160, 'val': 24}
"""Pictures of each split, at most: in three epochs of these, two at a time, a detector learns enough for some AP."""
RUNS = (('mamba-yolo_t', False, ('COCO', 'YOLO', 'VOC')), ('mamba-yolo-seg_t', True, ('COCO', 'YOLO')))
"""Config, whether it has masks, and the formats."""
SETTINGS = ('--epochs', '3', '--image-size', '160', '--batch-size', '2', '--seed', '0')
STEPS = ('check-data', 'train', 'test', 'predict', 'export', 'test export')


def parse_args() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                     allow_abbrev=False)  # abbreviations may be of options of pip
    parser.add_argument('--data', type=Path, help='a data set in any format, with train and val; default: one is made')
    return parser.parse_known_args()  # the rest is for pip


def main() -> None:
    args, pip_arguments = parse_args()
    with TemporaryDirectory(prefix='stranger-') as name:
        folder = Path(name)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools says when it begins and ends
            if args.data is None:
                compose(folder / 'composed', Composition(train_images=COUNTS['train'], val_images=COUNTS['val']))
            data = read_pictures(args.data or folder / 'composed', COUNTS)
        start = time.monotonic()
        environment = EmptyEnvironment(folder / 'environment', pip_arguments)
        environment.install_wheel('lite,export')
        print(f'{environment.wheel.name} installed in {time.monotonic() - start:.0f} s\n\n'
              f'{"config":18}{"format":8}{"".join(f"{step:>13}" for step in STEPS)}   AP, of the exported file',
              flush=True)
        for config, masks, formats in RUNS:
            chosen = data.with_masks() if masks else data
            if not any(picture.things for picture in chosen.pictures):
                print(f'{config:18}not run: the data set has no masks')
                continue
            results = {form: try_format(environment.command, folder / config / form, config, chosen, form, masks)
                       for form in formats}
            for form in formats[1:]:
                different = [key for key, value in results[form].items() if value != results[formats[0]][key]]
                if different:
                    sys.exit(f'error: {config} differs between {formats[0]} and {form} in: {", ".join(different)}')
        print('\nThe same in every format, to the last digit.')


def try_format(command: str, folder: Path, config: str, data: Pictures, form: str, masks: bool) -> dict[str, Any]:
    """Runs all commands in an empty folder, prints their seconds, and returns what came out of them."""
    own = folder / 'my data'
    WRITERS[form](data, own, masks)
    before, seconds = state(own), []

    def call(*arguments: object) -> None:
        start = time.monotonic()
        run([command, *map(str, arguments)], folder, XDG_CACHE_HOME=str(folder / 'cache'))
        seconds.append(f'{time.monotonic() - start:11.0f} s')

    call('check-data', own, '--out', 'check')
    call('train', config, '--data', own, *SETTINGS, '--work-dir', 'train')
    trained = next(folder.glob('train/*.py')), (folder / 'train' / 'last_checkpoint').read_text().strip()
    call('test', *trained, '--work-dir', 'test', '--out', 'test/found')
    pictures = next(own.rglob('val *')).parent
    call('predict', *trained, pictures, '--score', 0.01, '--save-txt', '--out-dir', 'predicted')
    call('export', *trained, '--out', 'model.onnx')
    if not masks:  # of a file, masks are not made
        call('test', trained[0], 'model.onnx', '--work-dir', 'test', '--out', 'test/exported')
    if state(own) != before:
        sys.exit(f'error: {config} has changed files of the data set in {form}')

    report = json.loads((folder / 'check' / 'report.json').read_text())
    found: dict[str, Any] = {'data': {split: {name: count for name, count in facts.items()
                                              if name not in ('annotations', 'folder')}
                                      for split, facts in report['splits'].items()}}
    for file in sorted(folder.glob('test/*.json')):
        content = json.loads(file.read_text())
        found[file.name] = content if isinstance(content, dict) else by_picture(content)
    for file in folder.glob('predicted/labels/val *.txt'):
        found.setdefault('predicted', {})[file.name] = file.read_text()
    metrics = [f'{name.partition("_")[0].partition("/")[2]} {value:.3f}'
               for file in ('found', 'exported') for name, value in found.get(f'{file}.metrics.json', {}).items()
               if name.endswith('_mAP')]
    print(f'{config:18}{form:8}{"".join(f"{one:>13}" for one in seconds)}{"" if not masks else " " * 13}   '
          f'{", ".join(metrics)}', flush=True)
    return found


def by_picture(detections: list[dict]) -> list[list[str]]:
    """Returns the detections of each picture, without the pictures' ids, which are others in each format."""
    pictures = defaultdict(list)
    for detection in detections:
        pictures[detection.pop('image_id')].append(json.dumps(detection, sort_keys=True))
    return sorted(pictures.values())


def state(folder: Path) -> dict[Path, tuple[int, int]]:
    """Returns size and time of change of all files of a folder."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob('*')}


if __name__ == '__main__':
    cli.run(main)
