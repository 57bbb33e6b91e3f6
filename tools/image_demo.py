"""Detects objects in an image, a folder of images or a video; writes drawn pictures and json.

    python tools/image_demo.py SOURCE CONFIG CHECKPOINT --out-dir OUT

leaves OUT/vis/NAME (a video becomes OUT/vis/NAME.mp4) and OUT/preds/NAME.json.
"""
from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import cv2
import torch
from mmengine.config import Config
from mmengine.utils import mkdir_or_exist
from tqdm import tqdm

from mmmamba.cli import run
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError
from mmmamba.demo.detector import Detector
from mmmamba.demo.media import Video, VideoFile, find_images
from mmmamba.errors import InputError

T = TypeVar('T')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, help='an image, a folder of images, or a video')
    parser.add_argument('config', help="the model's config")
    parser.add_argument('checkpoint', type=Path, help='its weights')
    parser.add_argument('--out-dir', type=Path, default=Path('outputs'), help='default: %(default)s')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score; default: %(default)s')
    parser.add_argument('--device', help='default: cuda where there is one, else cpu')
    parser.add_argument('--batch-size', type=int, default=1, help='images at a time; default: %(default)s')
    args = parser.parse_args()
    try:
        args.device = torch.device(args.device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        parser.error(f'--device: {error}')
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    return args


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def detect_images(detector: Detector, paths: list[Path], args: argparse.Namespace) -> None:
    load, done = LoadCheckedImage(), 0
    with tqdm(total=len(paths), unit='image') as bar:
        for batch in batched(paths, args.batch_size):
            readable = []
            for path in batch:
                try:
                    readable.append((path, load({'img_path': str(path)})['img']))
                except UnreadableImageError as error:
                    bar.write(f'warning: {error}; left out', file=sys.stderr)
            samples = detector.detect([image for _, image in readable]) if readable else []
            for (path, image), sample in zip(readable, samples):
                drawn = args.out_dir / 'vis' / path.name
                if not cv2.imwrite(str(drawn), detector.draw(image, sample, args.score_thr)):
                    raise InputError(f'cannot write {drawn}')
                write_json(args.out_dir / 'preds' / f'{path.name}.json',
                           {'file': path.name, **detector.describe(sample, args.score_thr)})
            done += len(readable)
            bar.update(len(batch))
    if not done:
        raise InputError(f'{args.source}: none of its {len(paths)} image(s) is readable')


def detect_video(detector: Detector, video: Video, args: argparse.Namespace) -> None:
    frames = []
    with VideoFile(args.out_dir / 'vis' / f'{video.path.stem}.mp4', like=video) as out, \
            tqdm(total=video.frame_count or None, unit='frame') as bar:
        for batch in batched(video, args.batch_size):
            for image, sample in zip(batch, detector.detect(batch)):
                out.write(detector.draw(image, sample, args.score_thr))
                frames.append({'frame': len(frames), **detector.describe(sample, args.score_thr)})
            bar.update(len(batch))
    write_json(args.out_dir / 'preds' / f'{video.path.name}.json',
               {'file': video.path.name, 'fps': video.fps, 'frames': frames})


def write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')


def main() -> None:
    args = parse_args()
    images = find_images(args.source)
    video = None if images else Video(args.source)
    detector = Detector(Config.fromfile(args.config), args.checkpoint, args.device)
    for name in ('vis', 'preds'):
        mkdir_or_exist(args.out_dir / name)
    if video is None:
        detect_images(detector, images, args)
    else:
        detect_video(detector, video, args)
    print(f"Drawn pictures: {args.out_dir / 'vis'}\nDetections: {args.out_dir / 'preds'}")


if __name__ == '__main__':
    run(main)
