"""What ODMamba costs in mmdet's detectors and other backbones under ODSSPAFPN, and that each pair trains:
``python -m benchmarks.mixing``.

Of every config in ``configs/od_mamba`` and ``configs/odss_pafpn``: parameters, FLOPs (2 per multiply-add), and the
loss over a few steps on one fixed batch of two composed images, from random weights, at one constant rate for all.
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from torch import nn

from mmmamba.analysis import count_detector
from mmmamba.analysis.measure import Row, Table, with_environment, write_csv
from mmmamba.datasets.composed import CLASSES, Composition, compose

from mmdet.registry import DATASETS, MODELS  # isort: skip  (after mmmamba, which supplies mmcv's operators)

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
FOLDERS = ('od_mamba', 'odss_pafpn')
# Height and width: RTMDet and the YOLO-style detectors are trained at the second.
MMDET_SIZE, YOLO_SIZE = (800, 1280), (640, 640)
# Of the composed images, in pixels; two-stage DETRs choose as many queries from the image's tokens as they have.
SIDE, QUERY_SIDE = 128, 224
AVERAGED = 3


def config_names() -> list[str]:
    paths = [path for folder in FOLDERS for path in sorted((CONFIGS / folder).glob('*_coco.py'))]
    return [str(path.relative_to(CONFIGS)) for path in paths]


def costs(cfg: Config, model: nn.Module) -> Row:
    """Parameters and FLOPs at the size for which the config is made."""
    height, width = YOLO_SIZE if cfg.model.type in ('RTMDet', 'SingleStageDetector') else MMDET_SIZE
    cost = count_detector(model, height, width).total
    return {'height': height, 'width': width, 'parameters': cost.parameters,
            'linear_gflops': round(cost.linear_flops / 1e9, 2), 'scan_gflops': round(cost.scan_flops / 1e9, 2)}


def losses(cfg: Config, model: nn.Module, data: Path, steps: int, lr: float) -> Row:
    """Returns the loss at first, at last and, where it rises in between, at its highest: means of three steps.

    The config's parameter groups and gradient clipping are kept.
    """
    optimizer = dict(type='AdamW', lr=lr, weight_decay=0.05)
    wrapper = build_optim_wrapper(model, {**cfg.optim_wrapper, 'optimizer': optimizer})
    side = QUERY_SIDE if cfg.model.get('as_two_stage') else SIDE
    images = batch(data, side, with_mask='segm' in cfg.val_evaluator.metric)
    if cfg.model.type == 'RTMDet':
        # Its loss is weighted with the overlap of the predicted boxes, so that it rises until there is some.
        steps *= 8
    model.train()
    run = [model.train_step(images, wrapper)['loss'].item() for _ in range(steps)]
    means = [round(float(mean), 3) for mean in np.convolve(run, np.ones(AVERAGED) / AVERAGED, 'valid')]
    row = {'side': side, 'steps': steps, 'lr': lr, 'first_loss': means[0], 'last_loss': means[-1]}
    return {**row, 'highest_loss': max(means)} if max(means) > means[0] else row


def batch(data: Path, side: int, with_mask: bool) -> dict:
    """Returns the two training images of a composed data set, as a data loader would give them."""
    dataset = DATASETS.build(dict(
        type='CocoDataset',
        ann_file=str(data / 'annotations/train.json'),
        data_prefix=dict(img=f'{data}/train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True, with_mask=with_mask),
            dict(type='Resize', scale=(side, side)),
            dict(type='PackDetInputs'),
        ]))
    return pseudo_collate([dataset[0], dataset[1]])


def measure(name: str, data: Path, steps: int, lr: float) -> Row:
    """Measures the row of a config, named by its path under ``configs/``."""
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.pop('init_cfg', None)  # pretrained weights, which this does without
    torch.manual_seed(0)
    np.random.seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return {'config': Path(name).stem, **costs(cfg, model), **losses(cfg, model, data, steps, lr)}


def markdown(rows: Sequence[Mapping[str, object]]) -> str:
    """Writes the rows as the table of ``docs/mixing.md``."""
    header = ('config', 'size', 'parameters', 'conv and linear GFLOPs', 'scan GFLOPs', 'loss')
    lines = []
    for row in rows:
        size = f'{row["width"]} x {row["height"]}'
        giga = [f'{float(row[column]):.1f}' for column in ('linear_gflops', 'scan_gflops')]
        means = [row[column] for column in ('first_loss', 'highest_loss', 'last_loss') if row.get(column)]
        trained = ' → '.join(f'{float(mean):.2f}' for mean in means)
        lines.append([row['config'], size, f'{int(row["parameters"]) / 1e6:.2f} M', *giga, trained])
    return Table(header, lines, words=('config', 'size', 'loss')).markdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--configs', nargs='+', default=config_names(), metavar='NAME', help='paths under configs/')
    parser.add_argument('--steps', type=int, default=12, help='of the optimizer; RTMDet takes eight times as many')
    parser.add_argument('--lr', type=float, default=2e-4, help='learning rate of AdamW')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args()
    if args.steps < AVERAGED:
        parser.error(f'--steps must be at least {AVERAGED}')
    torch.set_num_threads(args.threads)
    init_default_scope('mmdet')
    MMLogger.get_instance('mixing', log_level='WARNING')  # else every parameter's initialisation is reported
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / 'data'
        compose(data, Composition(train_images=2, val_images=1))
        for name in args.configs:
            rows.append(measure(name, data, args.steps, args.lr))
            print(Table.of_records(rows[-1:]).text(), flush=True)
            if args.csv:
                write_csv(args.csv, with_environment(rows, torch.device('cpu')))
    print(markdown(rows))


if __name__ == '__main__':
    main()
