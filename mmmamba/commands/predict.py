"""Detects objects in an image, a folder of images or a video; writes drawn pictures and json.

    mmmamba predict SOURCE CONFIG CHECKPOINT --out-dir OUT

leaves OUT/vis/NAME (a video becomes OUT/vis/NAME.mp4) and OUT/preds/NAME.json.

The exit status is 0 if every image or frame is done, 3 if some are not, each with a warning that says why, and 2 if
nothing is done.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmmamba.analysis.inference import Detector, detect_images, detect_video, warn
from mmmamba.analysis.media import Video, find_images
from mmmamba.errors import InputError, PartialResultError
from mmmamba.settings import load_config


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='an image, a folder of images, or a video')
    parser.add_argument('config', help="the model's config")
    parser.add_argument('checkpoint', type=Path, help='its weights, or an exported file')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score; default: %(default)s')
    parser.add_argument('--device', help='default: cuda if there is one, else cpu')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time; default: %(default)s')
    args = parser.parse_args()
    try:
        args.device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        parser.error(f'--device: {error}')
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    return args


def make_folders(out_dir: Path) -> None:
    for name in ('vis', 'preds'):
        try:
            (out_dir / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f'--out-dir: cannot make the folder {out_dir / name}: {error.strerror}') from error


def main() -> None:
    args = parse_args()
    images, others = find_images(args.source)
    video = None if images else Video(args.source)
    detector = Detector(load_config(args.config), args.checkpoint, args.device)
    make_folders(args.out_dir)
    for path in others:
        warn(f'{path}: {"a folder" if path.is_dir() else "no image, by its ending"}; left out')
    how = args.out_dir, args.score_thr, args.batch_size
    if video is None:
        done, wanted, unit = detect_images(detector, images, *how), len(images), 'image(s)'
    else:
        done, wanted, unit = detect_video(detector, video, *how), video.frame_count, 'frame(s)'
    if not done:
        raise InputError(f'{args.source}: none of its {wanted} {unit} could be done; the warnings say why')
    print(f"Drawn pictures: {args.out_dir / 'vis'}\nDetections: {args.out_dir / 'preds'}")
    if done < wanted:
        raise PartialResultError(f'{args.source}: {wanted - done} of {wanted} {unit} could not be done; the warnings '
                                 f'say why')
