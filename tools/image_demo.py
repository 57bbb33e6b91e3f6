"""Detects objects in an image, a folder of images or a video; writes drawn pictures and json.

    python tools/image_demo.py SOURCE CONFIG CHECKPOINT --out-dir OUT

leaves OUT/vis/NAME (a video becomes OUT/vis/NAME.mp4) and OUT/preds/NAME.json.

The exit status is 0 if every image or frame is done, 3 if some are not, each with a warning that says why, and 2 if
nothing is done.
"""
from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from tqdm import tqdm

from mmmamba.cli import run
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError
from mmmamba.demo.detector import Detector
from mmmamba.demo.media import Video, VideoFile, find_images, write_picture
from mmmamba.errors import InputError, PartialResultError
from mmmamba.files import write_json

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


def warn(message: object) -> None:
    tqdm.write(f'warning: {" ".join(str(message).split())}', file=sys.stderr)


def detect_images(detector: Detector, paths: list[Path], args: argparse.Namespace) -> int:
    """Returns the number of images that are done."""
    load, done = LoadCheckedImage(), 0
    with tqdm(total=len(paths), unit='image') as bar:
        for batch in batched(paths, args.batch_size):
            images, prepared = [], []
            for path in batch:
                try:
                    image = load({'img_path': str(path)})['img']
                    prepared.append(detector.prepare(image, path))
                    images.append((path, image))
                except UnreadableImageError as error:
                    warn(f'{error}; left out')
            for (path, image), sample in zip(images, detector.detect(prepared)):
                try:
                    write_detections(detector, path, image, sample, args)
                    done += 1
                except (InputError, OSError) as error:
                    warn(f'{path}: its results cannot be written: {error}')
            bar.update(len(batch))
    return done


def write_detections(detector: Detector, path: Path, image: np.ndarray, sample: DetDataSample,
                     args: argparse.Namespace) -> None:
    write_json(args.out_dir / 'preds' / f'{path.name}.json',
               {'file': path.name, **detector.describe(sample, args.score_thr)})
    drawn = args.out_dir / 'vis' / path.name
    check_not_source(drawn, path)
    write_picture(drawn, detector.draw(image, sample, args.score_thr))


def detect_video(detector: Detector, video: Video, args: argparse.Namespace) -> int:
    """Returns the number of frames that are done."""
    frames = []
    drawn = args.out_dir / 'vis' / f'{video.path.stem}.mp4'
    check_not_source(drawn, video.path)
    with VideoFile(drawn, like=video) as out, tqdm(total=video.frame_count or None, unit='frame') as bar:
        for batch in batched(video, args.batch_size):
            prepared = [detector.prepare(image, video.path) for image in batch]
            for image, sample in zip(batch, detector.detect(prepared)):
                out.write(detector.draw(image, sample, args.score_thr))
                frames.append({'frame': len(frames), **detector.describe(sample, args.score_thr)})
            bar.update(len(batch))
    write_json(args.out_dir / 'preds' / f'{video.path.name}.json',
               {'file': video.path.name, 'fps': video.fps, 'frames': frames})
    if len(frames) < video.frame_count:
        warn(f'{video.path}: only {len(frames)} of the {video.frame_count} frames that it announces can be read')
    return len(frames)


def check_not_source(out: Path, source: Path) -> None:
    if out.exists() and out.samefile(source):
        raise InputError(f'{out} is the input itself; choose another --out-dir')


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
    detector = Detector(Config.fromfile(args.config), args.checkpoint, args.device)
    make_folders(args.out_dir)
    for path in others:
        warn(f'{path}: {"a folder" if path.is_dir() else "no image, by its ending"}; left out')
    if video is None:
        done, wanted, unit = detect_images(detector, images, args), len(images), 'image(s)'
    else:
        done, wanted, unit = detect_video(detector, video, args), video.frame_count, 'frame(s)'
    if not done:
        raise InputError(f'{args.source}: none of its {wanted} {unit} could be done; the warnings say why')
    print(f"Drawn pictures: {args.out_dir / 'vis'}\nDetections: {args.out_dir / 'preds'}")
    if done < wanted:
        raise PartialResultError(f'{args.source}: {wanted - done} of {wanted} {unit} could not be done; the warnings '
                                 f'say why')


if __name__ == '__main__':
    run(main)
