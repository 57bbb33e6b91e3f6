"""Parameters and FLOPs of the detector in a config: ``get_flops.py CONFIG [--shape H W] [--depth N] [--json]``.

FLOPs are 2 per multiply-add, for one image. ``Conv+linear`` has convolutions, linear layers and matrix products;
``Scan`` the selective scans, 9·B·L·D·N + 2·B·L·D for L tokens, D channels over all directions and N states.
Detectors of the R-CNN family are counted with 1000 proposals and masks of 100. ``--device meta`` counts without
computing, where nothing in the model depends on the image. The last lines are for comparison with published tables,
which count multiply-adds (mmdet, MambaVision), these plus the operations of the scans (VMamba), or leave projections
out (Mamba YOLO).
"""
from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from mmdet.registry import MODELS
from mmengine.config import DictAction
from mmengine.registry import init_default_scope

from mmmamba.analysis import Cost, ModelCost, count_detector
from mmmamba.analysis.measure import Table
from mmmamba.cli import run
from mmmamba.errors import InputError
from mmmamba.settings import load_config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('--shape', type=int, nargs=2, default=(640, 640), metavar=('H', 'W'), help='image, in pixels')
    parser.add_argument('--depth', type=int, default=1, help='how deep to list modules')
    parser.add_argument('--device', default='cpu', help='where to run the forward pass')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help="settings instead of the config's")
    parser.add_argument('--json', action='store_true', help='print JSON rather than a table')
    args = parser.parse_args()
    if min(args.shape) < 1:
        raise InputError(f'--shape must be positive, got {args.shape[0]} {args.shape[1]}')
    if args.depth < 1:
        raise InputError(f'--depth must be positive, got {args.depth}')

    config = load_config(args.config)
    config.merge_from_dict(args.cfg_options or {})
    if 'model' not in config:
        raise InputError(f'{args.config} has no model')
    init_default_scope(config.get('default_scope', 'mmdet'))
    detector = MODELS.build(config.model)
    try:
        detector.to(args.device)
    except (AssertionError, RuntimeError) as error:  # what PyTorch says to a device that is not there
        raise InputError(f'--device {args.device}: {error}') from error
    cost = count_detector(detector, *args.shape)
    if args.json:
        rows = {**cost.parts(args.depth), 'total': cost.total}
        print(json.dumps(dict(shape=list(args.shape), **{name: asdict(row) for name, row in rows.items()}), indent=2))
    else:
        print(table(cost, args.depth))


def table(cost: ModelCost, depth: int) -> str:
    """Writes the costs as text: a row for each part, one for their sum, and what published conventions leave out."""

    def row(name: str, part: Cost) -> list[str]:
        return [name, f'{part.parameters:,}', f'{part.linear_flops / 1e9:.2f}', f'{part.scan_flops / 1e9:.2f}']

    rows = [*(row(name, part) for name, part in cost.parts(depth).items()), row('total', cost.total)]
    header = ('', 'Parameters', 'Conv+linear GFLOPs', 'Scan GFLOPs')
    lines = Table(header, rows, words=('',)).text().splitlines()
    lines.insert(-1, '-' * len(lines[0]))
    multiply_adds, scans = cost.total.linear_flops / 2e9, cost.total.scan_flops / 1e9
    lines.append(f"Conv+linear in multiply-adds, as mmdet's tables count: {multiply_adds:.2f} G"
                 + (f', {multiply_adds + scans:.2f} G with the scans' if scans else ''))
    if cost.total.projection_flops:
        projections, rest = (flops / 1e9 for flops in (cost.total.projection_flops, cost.total.convention_flops))
        lines.append(f'Conv+linear without the projections that make the inputs of the scans ({projections:.2f}), as '
                     f"Mamba YOLO's table counts: {rest:.2f}")
    return '\n'.join(lines)


if __name__ == '__main__':
    run(main)
