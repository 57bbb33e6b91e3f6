"""Exports a detector for other runtimes: ``python tools/deployment/export.py CONFIG CHECKPOINT --out FILE.onnx``.

Of a detector with a YOLOv8Head (Mamba YOLO, YOLOv8) the file takes images (B, 3, H, W), RGB from 0 to 1, and returns
(B, 4 + classes, cells): centre x, centre y, width and height in pixels, and scores. Of any other detector it returns
the maps of backbone and neck. It is compared with PyTorch first; one that differs is not kept.
"""
from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

import mmmamba  # noqa: F401  (makes mmdet run without compiled mmcv, and registers the models)
from mmmamba import cli
from mmmamba.analysis.media import find_images
from mmmamba.deploy.export import EXPORTERS, ExportOptions, Preprocessing, Suppression, exported_network, make_exporter
from mmmamba.deploy.export.runtime import letterbox
from mmmamba.engine import load_checkpoint_checked
from mmmamba.errors import InputError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help="the model's config")
    parser.add_argument('checkpoint', help='its weights')
    parser.add_argument('--format', choices=EXPORTERS, default='onnx', help='default: %(default)s')
    parser.add_argument('--out', type=Path, required=True, help='the file to write')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="of the images; default: that of the config's test pipeline")
    parser.add_argument('--dynamic', action='store_true', help='leave batch, height and width open')
    parser.add_argument('--nms', action='store_true',
                        help="return (B, n, 6) instead: the boxes after NMS with the config's thresholds")
    parser.add_argument('--portable', action='store_true',
                        help='standard operators alone, for runtimes without our compiled scan')
    parser.add_argument('--images', type=Path, metavar='FOLDER', help='pictures to compare on, at most eight')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override settings of the config')
    return parser.parse_args()


def size_of(cfg: Config) -> tuple[int, int]:
    """Returns height and width of the images that the config tests on."""
    for transform in get_test_pipeline_cfg(cfg):
        if transform['type'] in ('LetterboxPad', 'Pad') and transform.get('size'):
            width, height = transform['size']
            return height, width
    raise InputError('the config pads its test images to no fixed size: name one with --size H W')


def suppression_of(cfg: Config) -> Suppression:
    """Returns the thresholds of the config's test_cfg."""
    test_cfg = cfg.model.test_cfg
    return Suppression(test_cfg.score_thr, test_cfg.nms.iou_threshold, test_cfg.max_per_img)


def pictures(folder: Path, size: tuple[int, int], pad_value: int) -> list[np.ndarray]:
    """Returns the first pictures of a folder as RGB inputs of ``size``, (H, W, 3), uint8."""
    found = []
    for path in find_images(folder)[0][:8]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f'--images: {path} cannot be read')
        inputs, _ = letterbox(picture, size, pad_value)
        found.append(np.rint(inputs[0].transpose(1, 2, 0) * 255).astype(np.uint8))
    return found


def main() -> None:
    args = parse_args()
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    detector = MODELS.build(cfg.model)
    stored = load_checkpoint_checked(detector, args.checkpoint).get('dataset_meta') or {}
    classes = stored.get('classes') or DATASETS.build({**cfg.test_dataloader.dataset, 'lazy_init': True}).metainfo[
        'classes']
    options = ExportOptions(tuple(args.size or size_of(cfg)), args.dynamic,
                            suppression_of(cfg) if args.nms else None, args.portable)
    preprocessing = Preprocessing(int(cfg.model.data_preprocessor.get('pad_value', 0)), tuple(classes))
    images = pictures(args.images, options.size, preprocessing.pad_value) if args.images else []
    start = time.monotonic()
    differences = make_exporter(args.format).export(
        exported_network(detector), args.out, options, preprocessing, images)
    print(f'{args.out}: {args.out.stat().st_size / 2**20:.1f} MiB, in {time.monotonic() - start:.0f} s; largest '
          f'differences from PyTorch: {", ".join(f"{name} {value:.1e}" for name, value in differences.items())}')


if __name__ == '__main__':
    cli.run(main)
