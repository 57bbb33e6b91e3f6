"""Effective receptive field of a stage: ``receptive_field.py CONFIG[=CHECKPOINT] … --images FOLDER --out FIELD.png``.

How much the middle cell of a feature map depends on each pixel: the mean over images of the absolute gradient of the
sum over the cell's positive channels (arXiv 1701.04128, 2203.06717). Several models are drawn side by side; the table
has the sides, in pixels, of the smallest squares about the cell that hold 20, 30, 50 and 99 % of the whole. Without a
checkpoint, weights are as a training from scratch begins (seed 0), which shows what the architecture starts from and
not what it learns.
In Mamba YOLO and YOLOv8 the max pools of SPPF alone spread the last map over 13 x 13 cells;
``--stage backbone.stages.3`` is the map before them.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch
from matplotlib.figure import Figure
from tqdm import tqdm

from mmmamba.analysis import build_detector, model_name
from mmmamba.analysis.measure import Table, write_csv
from mmmamba.analysis.receptive_field import (
    SHARES,
    SIZE_DIVISOR,
    distinct_names,
    draw,
    load_images,
    receptive_field,
    stage_features,
)
from mmmamba.analysis.sources import find_images
from mmmamba.cli import require_device, require_folder_of, run
from mmmamba.engine.checkpoint import load_checkpoint_checked
from mmmamba.errors import InputError


def main() -> None:
    args = parse_args()
    paths = find_images(args.images)[0][:args.num_images]
    if not paths:
        raise InputError(f'{args.images} is no image')
    fields = []
    pairs = [model.partition('=')[::2] for model in args.models]
    names = distinct_names([config for config, _ in pairs], model_name)
    weights = distinct_names([checkpoint for _, checkpoint in pairs if checkpoint], lambda file: Path(file).name)
    for config, checkpoint in pairs:
        torch.manual_seed(0)
        detector = build_detector(config).eval().requires_grad_(False)
        if checkpoint:
            load_checkpoint_checked(detector, checkpoint)
        detector.to(args.device)
        images = load_images(detector, paths, args.size)
        field = receptive_field(
            stage_features(detector, args.stage), tqdm(images, names[config], len(paths), unit='image'))
        trained = weights.get(checkpoint, 'untrained')
        fields.append((f'{names[config]}, stage {args.stage}\n{trained}, stride {field.stride:g}', field))
    print(f'Sides in pixels, of {args.size}; {len(paths)} image(s)')
    rows = [[title.replace('\n', ', '), *(str(field.side(share)) for share in SHARES)] for title, field in fields]
    print(Table(('', *(f'{share:.0%}' for share in SHARES)), rows, words=('',)).text())
    if args.csv:
        write_csv(args.csv, [
            dict(model=model, stage=args.stage, stride=f'{field.stride:g}', size=args.size, images=len(paths),
                 **{f'side_{100 * share:.0f}': field.side(share) for share in SHARES})
            for model, (_, field) in zip(args.models, fields)])
    draw(fields, args.out)
    print(f'Picture: {args.out}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', metavar='CONFIG[=CHECKPOINT]', help='a config, and its weights')
    parser.add_argument('--images', type=Path, required=True, help='a folder of images, or one image')
    parser.add_argument('--num-images', type=int, default=16, help='the first so many; default: %(default)s')
    parser.add_argument('--stage', default='-1', help="which of the backbone's maps, from 0; or the name of a module "
                        'that makes a map, as backbone.stages.0; default: the last map')
    parser.add_argument('--size', type=int, default=640, help='side to which images are scaled, in pixels, a multiple '
                        f'of {SIZE_DIVISOR}; default: %(default)s')
    parser.add_argument('--device', default='cpu', help='cpu, cuda or cuda:N; default: %(default)s')
    parser.add_argument('--out', type=Path, default=Path('receptive_field.png'), help='default: %(default)s')
    parser.add_argument('--csv', type=Path, help='write the table')
    args = parser.parse_args()
    if args.size < 1 or args.size % SIZE_DIVISOR:
        raise InputError(f'--size must be a positive multiple of {SIZE_DIVISOR}, got {args.size}')
    if args.num_images < 1:
        raise InputError(f'--num-images must be positive, got {args.num_images}')
    for path in filter(None, (args.out, args.csv)):
        require_folder_of(path)
    require_device(args.device)
    formats = Figure().canvas.get_supported_filetypes()
    if args.out.suffix[1:].lower() not in formats:
        raise InputError(f'--out {args.out}: its name must end as a picture\'s: {", ".join(sorted(formats))}')
    return args


if __name__ == '__main__':
    run(main)
