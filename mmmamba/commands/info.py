"""Describes this installation; or, of a config, the model: parameters and FLOPs by part, AP, and weights.

    mmmamba info                what is installed, which devices and which backends of the scans there are
    mmmamba info mamba-yolo_t   what the model costs, and what is known of it
"""
from __future__ import annotations

import argparse
import platform
from importlib import metadata

import torch

from mmmamba.analysis.measure import Table
from mmmamba.commands.argument_types import whole
from mmmamba.ops.info import describe
from mmmamba.package_files import CONFIGS, find_config
from mmmamba.version import __version__

PACKAGES = ('torch', 'triton', 'torchvision', 'mmengine', 'mmcv', 'mmcv-lite', 'mmdet', 'onedl-mmengine', 'onedl-mmcv',
            'onedl-mmdetection', 'numpy', 'opencv-python', 'opencv-python-headless', 'pycocotools', 'onnxruntime',
            'openvino', 'supervision', 'tensorboard')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', nargs='?', help='config file, or the name of one of ours: mamba-yolo_t')
    parser.add_argument('--shape', type=whole, nargs=2, default=(640, 640), metavar=('H', 'W'),
                        help='image that FLOPs are counted on, in pixels; default: 640 640')
    args = parser.parse_args()
    print(model_card(args.config, *args.shape) if args.config else installation())


def installation() -> str:
    """Returns versions, devices and backends, for a look and for a bug report."""
    versions = [[name, _version(name)] for name in PACKAGES]
    devices = [f'cuda:{index} {torch.cuda.get_device_name(index)}' for index in range(torch.cuda.device_count())]
    return '\n\n'.join([
        f'mmmamba {__version__}, Python {platform.python_version()}, {platform.platform()}\n'
        f'configs: {CONFIGS}\ndevices: {", ".join(["cpu", *devices])}',
        Table(('package', 'version'), [row for row in versions if row[1]], words=('package', 'version')).text(),
        describe()])


def model_card(name: str, height: int, width: int) -> str:
    """Returns what a config's detector costs on an image, and what the zoo knows of it."""
    # These need mmdet, and the installation is described without.
    from mmmamba.analysis.detector import build_detector, count_detector
    from mmmamba.commands.zoo import model_table, weights_table
    from mmmamba.zoo import zoo_models, zoo_weights

    path = find_config(name)
    cost = count_detector(build_detector(str(path)), height, width)
    rows = [[part, f'{own.parameters / 1e6:.2f}', f'{(own.linear_flops + own.scan_flops) / 1e9:.2f}']
            for part, own in [*cost.parts().items(), ('total', cost.total)]]
    found = [model for model in zoo_models() if model.config.resolve() == path.resolve()]
    backbone = found[0].collection if found else None
    weights = [file for file in zoo_weights().values()
               if file.name == path.stem or _is_backbone_of(file.name, path.stem)]
    blocks = [f'{path}{f", of {backbone}" if backbone else ""}',
              Table(('part', 'parameters (M)', f'GFLOPs at {height} x {width}'), rows, words=('part', )).text()]
    blocks += [model_table(found).text()] if found else []
    blocks += [weights_table(weights).text()] if weights else []
    return '\n\n'.join(blocks)


def _is_backbone_of(weights: str, config: str) -> bool:
    """Tells whether a config's name has that of a backbone among its parts: mask-rcnn_vmamba-t_fpn has vmamba-t."""
    return weights in config.split('_')


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ''
