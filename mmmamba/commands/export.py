"""Exports a detector for other runtimes.

Of a detector with a YOLOv8Head (Mamba YOLO, YOLOv8) the file takes images (B, 3, H, W), RGB from 0 to 1, and returns
(B, 4 + classes, cells): centre x, centre y, width and height in pixels, and scores. Of any other detector it returns
the maps of backbone and neck. It is compared with PyTorch first; one that differs is not kept. Only --int8 changes the
results: its file is judged by its AP on the config's test set, which is printed and kept in the file.
"""
from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmmamba import cli
from mmmamba.analysis.sources import find_images
from mmmamba.datasets.formats import coco_datasets
from mmmamba.deploy.export import EXPORTERS, ExportOptions, Preprocessing, Suppression, exported_network, make_exporter
from mmmamba.deploy.export.exporter import rounding_differences
from mmmamba.deploy.export.network import BoxNetwork, ExportedNetwork
from mmmamba.deploy.export.runtime import letterbox
from mmmamba.engine import load_checkpoint_checked
from mmmamba.engine.exported_detector import metrics_of
from mmmamba.errors import InputError
from mmmamba.recipes import RECIPES, under_recipe
from mmmamba.settings import load_config

MOST_CALIBRATED = 300
"""Pictures that --int8 takes at most."""
TRAINING_SET = ''
"""What --int8 is without a folder."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', choices=EXPORTERS, default='onnx', help='default: %(default)s')
    parser.add_argument('--out', type=Path, required=True, metavar='FILE', help='the file to write')
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'),
                        help="of the images; default: that of the config's test pipeline")
    parser.add_argument('--dynamic', action='store_true', help='leave batch, height and width open')
    parser.add_argument('--nms', action='store_true',
                        help="return (B, n, 6) instead: the boxes after NMS with the config's thresholds")
    parser.add_argument('--portable', action='store_true',
                        help='standard operators alone, for runtimes without our compiled scan')
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument('--half', action='store_true',
                         help='round the weights to float16: half the file; it is computed in float32 as before')
    weights.add_argument('--int8', nargs='?', const=TRAINING_SET, metavar='FOLDER',
                         help='OpenVINO only: convolutions in int8, calibrated on these pictures, by default those of '
                         f'the training set, of which {MOST_CALIBRATED} are taken; prints AP before and after')
    parser.add_argument('--data', metavar='|'.join([*RECIPES, 'PATH']),
                        help="another data set than the config's: one of these names, or your own in COCO, YOLO or "
                        'VOC format')
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


def pad_value_of(cfg: Config) -> int:
    """Returns what the config's test pipeline pads pictures with, 0 to 255."""
    values = [transform['pad_val'] for transform in get_test_pipeline_cfg(cfg)
              if transform['type'] in ('LetterboxPad', 'Pad') and transform.get('pad_val') is not None]
    value = values[0] if values else cfg.model.get('data_preprocessor', {}).get('pad_value', 0)
    value = value['img'] if isinstance(value, Mapping) else value
    return int(value if isinstance(value, (int, float)) else value[0])


def suppression_of(cfg: Config) -> Suppression:
    """Returns the thresholds of the config's test_cfg."""
    try:
        test_cfg = cfg.model.test_cfg
        if test_cfg.nms.type != 'nms':
            raise InputError(f'--nms: the config has {test_cfg.nms.type}, files can have nms alone')
        return Suppression(test_cfg.score_thr, test_cfg.nms.iou_threshold, test_cfg.max_per_img)
    except AttributeError:
        raise InputError('--nms: the config has no score_thr, nms.iou_threshold and max_per_img in its test_cfg, as '
                         'one of a detector with a YOLOv8Head has') from None


def training_images(cfg: Config) -> list[Path]:
    """Returns the images of the config's training set."""
    found: list[Path] = []
    for dataset in coco_datasets(cfg.train_dataloader.dataset):
        built = DATASETS.build({**dataset, 'pipeline': []})
        found += [Path(built.get_data_info(index)['img_path']) for index in range(len(built))]
    return found


def pictures(paths: Sequence[Path], most: int, size: tuple[int, int], pad_value: int) -> list[np.ndarray]:
    """Returns some of these pictures, from all over them, as RGB inputs of ``size``, (H, W, 3), uint8."""
    found = []
    for path in paths[::-(-len(paths) // most) or 1]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f'{path} cannot be read')
        inputs, _ = letterbox(picture, size, pad_value)
        found.append(np.rint(inputs[0].transpose(1, 2, 0) * 255).astype(np.uint8))
    return found


def listed(differences: Mapping[str, float]) -> str:
    return ', '.join(f'{name} {value:.1e}' for name, value in differences.items())


def test_set_problem(cfg: Config, options: ExportOptions, classes: Sequence[str]) -> str | None:
    """Returns why AP cannot be measured on the config's test set."""
    try:
        if not options.dynamic and options.size != size_of(cfg):
            return f'the test pipeline makes images of {size_of(cfg)}'
        found = DATASETS.build(cfg.test_dataloader.dataset).metainfo['classes']
    except (InputError, FileNotFoundError) as error:
        return cli.describe(error)
    return None if tuple(found) == tuple(classes) else f'the test set has the classes {tuple(found)}'


def export_int8(network: ExportedNetwork, args: argparse.Namespace, cfg: Config, options: ExportOptions,
                preprocessing: Preprocessing, compared: Sequence[np.ndarray]) -> str:
    """Writes the file, of one that equals PyTorch; returns what it costs."""
    try:
        from mmmamba.deploy.export import quantize
    except ModuleNotFoundError as error:
        raise InputError(f'{error.name} is not installed: pip install mmmamba[int8]') from error
    if not isinstance(network, BoxNetwork):
        raise InputError('--int8 is for detectors with a YOLOv8Head; of this one, backbone and neck are exported')
    paths = training_images(cfg) if args.int8 == TRAINING_SET else find_images(Path(args.int8))[0]
    images = pictures(paths, MOST_CALIBRATED, options.size, preprocessing.pad_value)
    problem = test_set_problem(cfg, options, preprocessing.classes)
    if network.has_masks:
        problem = 'the AP of files with masks is not measured'
    if problem and options.suppression:
        raise InputError(f'--int8: a file with --nms is judged by AP alone, which cannot be measured: {problem}')
    exporter = make_exporter(args.format)
    with tempfile.TemporaryDirectory(prefix='.export-', dir=args.out.absolute().parent) as folder:
        before, after = Path(folder, f'float32-{args.out.name}'), Path(folder, args.out.name)
        exporter.export(network, before, options, preprocessing, compared)
        quantize.quantize(before, after, images)
        facts: Mapping[str, object]
        if problem:
            facts = differences = quantize.differences_of_files(before, after, images, network.num_classes)
            report = f'AP was not measured ({problem}); differences from float32: {listed(differences)}'
        else:
            metrics = [metrics_of(cfg, file) for file in (before, after)]
            name = next(name for name in metrics[0] if name.endswith('mAP'))
            facts = {'metric': name, 'float32': metrics[0][name], 'int8': metrics[1][name]}
            report = f'{name} {metrics[1][name]:.3f} in int8, {metrics[0][name]:.3f} in float32'
        quantize.add_metadata(after, {'int8': json.dumps({'pictures': len(images), **facts})})
        for made, kept in zip(exporter.files(after), exporter.files(args.out)):
            made.replace(kept)
    return report


def main() -> None:
    args = parse_args()
    start = time.monotonic()
    if args.int8 is not None and args.format != 'openvino':
        raise InputError('--int8 is for --format openvino')
    cfg = load_config(args.config)
    if args.data:
        cfg = under_recipe(cfg, args.data)
    cfg.merge_from_dict(args.cfg_options or {})
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    detector = MODELS.build(cfg.model)
    stored = load_checkpoint_checked(detector, args.checkpoint).get('dataset_meta') or {}
    classes = stored.get('classes') or DATASETS.build({**cfg.test_dataloader.dataset, 'lazy_init': True}).metainfo[
        'classes']
    options = ExportOptions(tuple(args.size or size_of(cfg)), args.dynamic,
                            suppression_of(cfg) if args.nms else None, args.portable, args.half)
    preprocessing = Preprocessing(pad_value_of(cfg), tuple(classes))
    network, exporter = exported_network(detector), make_exporter(args.format)
    exporter.require(network, args.out, options, preprocessing)
    images = pictures(find_images(args.images)[0], 8, options.size, preprocessing.pad_value) if args.images else []
    if args.int8 is not None:
        report = export_int8(network, args, cfg, options, preprocessing, images)
    else:
        differences = exporter.export(network, args.out, options, preprocessing, images)
        report = f'largest differences from PyTorch: {listed(differences)}'
        if args.half:
            report += (' with the rounded weights; rounding them moves '
                       f'{listed(rounding_differences(network, options.size, images))}')
    size = sum(file.stat().st_size for file in exporter.files(args.out))
    print(f'{args.out}: {size / 2**20:.1f} MiB, in {time.monotonic() - start:.0f} s; {report}')
