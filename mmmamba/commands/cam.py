"""Draws class activation maps: where in a picture a layer of a detector responds, or what its scores depend on.

    mmmamba cam CONFIG CHECKPOINT IMAGE --layer backbone.stages.3 neck

leaves OUT_DIR/IMAGE_LAYER_METHOD.jpg: the picture with the map and the detections.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmmamba.analysis.cam import METHODS, CamDetector, blended, draw_map
from mmmamba.analysis.media import write_picture
from mmmamba.analysis.sources import find_images
from mmmamba.cli import device_named
from mmmamba.errors import InputError
from mmmamba.settings import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('source', type=Path, metavar='IMAGE', help='an image, or a folder of images')
    parser.add_argument('--layer', nargs='+', metavar='NAME',
                        help='modules by their names, a picture each; default: the outputs of the neck')
    parser.add_argument('--method', choices=list(METHODS), default='eigencam',
                        help='eigencam: what a layer responds to; gradcam and hirescam: what the scores depend on, '
                        'by the mean gradient of a channel or by that of each cell; default: %(default)s')
    parser.add_argument('--score', type=float, default=0.3,
                        help='detections above it are drawn, and explained by their gradients; default: %(default)s')
    parser.add_argument('--class', dest='name', metavar='NAME', help='explain only scores of this class')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs/cam'), help='default: %(default)s')
    parser.add_argument('--device', type=device_named, default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args()
    if args.name and args.method == 'eigencam':
        parser.error('--class is for --method gradcam or hirescam: eigencam knows no classes')
    return args


def main() -> None:
    args = parse_args()
    images, _ = find_images(args.source)
    if not images:
        raise InputError(f'{args.source}: no image, by its ending')
    detector = CamDetector(load_config(args.config), args.checkpoint, args.device)
    layers = args.layer or [detector.default_layer]
    for name in layers:
        detector.layer(name)
    if args.name and args.name not in detector.classes:
        raise InputError(f'--class {args.name}: the classes are {", ".join(detector.classes)}')
    label = detector.classes.index(args.name) if args.name else None
    for path in images:
        picture, batch = detector.prepare(path)
        activations, sample = detector.activations(batch, layers, args.score, label, args.method != 'eigencam')
        for name, maps in activations.items():
            heat = blended([METHODS[args.method](one) for one in maps], sample)
            out = args.out_dir / f'{path.stem}_{name}_{args.method}.jpg'
            write_picture(out, draw_map(picture, heat, sample, detector.classes, args.score))
            print(out)
