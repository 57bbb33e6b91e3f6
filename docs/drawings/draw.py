"""Draws the pictures of docs/models: `python docs/drawings/draw.py` writes them beside this file."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from canvas import GAP, Canvas, Point

from mmmamba.ops.scan.orders import visited_pixels

FOLDER = Path(__file__).resolve().parent


def way(direction: str, side: int) -> list[Point]:
    """Returns rows and columns of the pixels that a direction visits, in its order."""
    return [divmod(pixel, side) for pixel in visited_pixels(direction, side, side, torch.device('cpu')).tolist()]


def directions() -> Canvas:
    canvas = Canvas('Orders in which scans visit a map')
    for row, (names, cells) in enumerate(((('h', 'v', 'h_flip', 'v_flip'), (6, 6, 6, 6)),
                                          (('a00', 'a10', 'a01', 'a11'), (6, 6, 6, 6)),
                                          (('w2', 'w2_flip', 'w7', 'w7_flip'), (6, 6, 14, 14)))):
        for column, (name, side) in enumerate(zip(names, cells)):
            canvas.order(12 + 178 * column, 12 + 182 * row, 144, side, [way(name, side)], name)
    return canvas


def mamba_yolo() -> Canvas:
    canvas = Canvas('Mamba YOLO: backbone, neck and head')
    for x, text in ((95, 'ODMamba'), (330, 'ODSSPAFPN, down'), (510, 'ODSSPAFPN, up'), (700, 'YOLOv8Head')):
        canvas.text(x, 20, text, size=14)
    x, width = 20, 150
    rows = {'stem': 60, 'C2': 118, 'C3': 204, 'C4': 290, 'C5': 390}
    canvas.box(x, rows['stem'], 'Simple Stem, 4×', 'conv', width)
    canvas.box(x, rows['C2'], 'ODSS × 1', 'scan', width)
    for level, text, below in (('C3', 'ODSS × 2', 'C2'), ('C4', 'ODSS × 2', 'C3'), ('C5', 'ODSS × 1', 'C4')):
        y = rows[level]
        canvas.box(x, y - 42, 'Vision Clue Merge', 'conv', width, 28)
        canvas.box(x, y, text, 'scan', width)
        canvas.arrow((95, y - 28), (95, y - 17))
        canvas.arrow((95, rows[below] + 17), (95, y - 56))
    canvas.arrow((95, 77), (95, 101))
    canvas.box(x, rows['C5'] + 48, 'SPPF', 'conv', width)
    canvas.arrow((95, rows['C5'] + 17), (95, rows['C5'] + 31))
    p5 = rows['C5'] + 48
    for level, y, stride in (('C2', rows['C2'], 4), ('C3', rows['C3'], 8), ('C4', rows['C4'], 16), ('C5', p5, 32)):
        canvas.text(176, y - 6, f'{level}, stride {stride}', 'start', 11)
    # The neck: down on the left, up on the right.
    for level in ('C3', 'C4'):
        canvas.arrow((170, rows[level]), (276, rows[level]))
        canvas.box(276, rows[level], '++ ODSS', 'scan', 108)
    canvas.arrow((170, p5), (456, p5))
    canvas.arrow((330, p5), (330, rows['C4'] + 17))
    canvas.arrow((330, rows['C4'] - 17), (330, rows['C3'] + 17))
    for y in ((p5 + rows['C4']) / 2 + 30, (rows['C4'] + rows['C3']) / 2 + 4):
        canvas.text(340, y, 'up 2×', 'start', 11)
    for level, y in (('C4', rows['C4']), ('C5', p5)):
        canvas.box(456, y, '++ ODSS', 'scan', 108)
        if level == 'C4':
            canvas.arrow((384, y), (456, y))
    canvas.arrow((384, rows['C3']), (510, rows['C3']), (510, rows['C4'] - 17))
    canvas.arrow((510, rows['C4'] + 17), (510, p5 - 17))
    for y in ((rows['C4'] + rows['C3']) / 2 + 10, (p5 + rows['C4']) / 2 + 4):
        canvas.text(520, y, 'conv, stride 2', 'start', 11)
    for level, y, name in (('C3', rows['C3'], 'P3'), ('C4', rows['C4'], 'P4'), ('C5', p5, 'P5')):
        canvas.arrow((510 if level == 'C3' else 564, y), (640, y))
        canvas.text(588, y - 6, name, size=11)
        canvas.box(640, y - 17, 'boxes: 4 · 16 bins', 'act', 140, 30)
        canvas.box(640, y + 17, 'classes', 'act', 140, 30)
    return canvas


def _residual_pair(canvas: Canvas, y: float, first: Sequence[tuple[str, str]], second: Sequence[tuple[str, str]],
                   before: Sequence[tuple[str, str]] = ()) -> None:
    """Draws x + f(x) twice in a row."""
    items = [*before, *first, ('+', 'op'), *second, ('+', 'op'), ('output', 'note')]
    sides = canvas.chain(12, y, items)
    start, middle, end = len(before), len(before) + len(first), len(items) - 2
    for begin, stop in ((start, middle), (middle + 1, end)):
        canvas.residual(sides[begin][0] - GAP / 2 - 2, sum(sides[stop]) / 2, y)


def odss_block() -> Canvas:
    canvas = Canvas('The ODSS block and its RG block')
    _residual_pair(canvas, 60, [('LN', 'norm'), ('SS2D', 'scan')], [('LN', 'norm'), ('RG block', 'act')],
                   [('input', 'note'), ('1×1, BN, SiLU', 'conv')])
    canvas.text(12, 102, 'The public code has an LS block before the first LN, inside the branch.', 'start', 12)
    canvas.text(12, 142, 'RG block', 'start', 14)
    y = 200
    sides = canvas.chain(12, y, [('1×1, split', 'conv'), ('3×3, depthwise', 'conv'), ('+', 'op'), ('GELU', 'act'),
                                 ('×', 'op'), ('1×1', 'conv'), ('output', 'note')])
    canvas.residual(sides[1][0] - GAP / 2 - 2, sum(sides[2]) / 2, y, 34)
    canvas.arrow((sides[0][0] + 50, y + 17), (sides[0][0] + 50, y + 44), (sum(sides[4]) / 2, y + 44),
                 (sum(sides[4]) / 2, y + 10))
    canvas.text(sides[1][0] - 12, y - 40, 'x', size=12)
    canvas.text(sides[0][0] + 62, y + 40, 'v', size=12)
    return canvas


def ss2d() -> Canvas:
    canvas = Canvas('SS2D: one map scanned in four directions')
    y = 176
    left = canvas.chain(12, y, [('input', 'note'), ('1×1, split', 'conv'), ('3×3, depthwise', 'conv'),
                                ('GELU', 'act')])
    split, x = left[1], left[3][1]
    grid, fork, join = x + 46, x + 20, x + 46 + 64 + 26
    canvas.arrow((x, y), (fork, y), tip=False)
    for number, direction in enumerate(('h', 'v', 'h_flip', 'v_flip')):
        centre = y - 132 + 88 * number
        canvas.arrow((fork, y), (fork, centre), (grid, centre))
        canvas.order(grid, centre - 32, 64, 4, [way(direction, 4)], '')
        canvas.arrow((grid + 64, centre), (join, centre), (join, y + (-10 if centre < y else 10)))
    canvas.operation(join, y, '+')
    canvas.arrow((join + 10, y), (join + 10 + GAP, y))
    right = canvas.chain(join + 10 + GAP, y, [('LN', 'norm'), ('×', 'op'), ('1×1', 'conv'), ('output', 'note')])
    low = y + 200
    gate = canvas.box(split[1] + 60, low, 'GELU', 'act')
    canvas.arrow((split[0] + 50, y + 17), (split[0] + 50, low), (gate[0], low))
    canvas.arrow((gate[1], low), (sum(right[1]) / 2, low), (sum(right[1]) / 2, y + 10))
    canvas.text(split[0] + 62, low - 8, 'z', size=12)
    canvas.text(split[1] + 10, y - 8, 'x', size=12)
    return canvas


def vss_block() -> Canvas:
    canvas = Canvas('The VSS block of VMamba')
    _residual_pair(canvas, 60, [('LN', 'norm'), ('SS2D, no gate', 'scan')], [('LN', 'norm'), ('MLP', 'act')],
                   [('input', 'note')])
    return canvas


def efficient_vmamba() -> Canvas:
    canvas = Canvas('EfficientVMamba: the EVSS block')
    y = 104
    sides = canvas.chain(12, y, [('input', 'note'), ('LN', 'norm')])
    fork = sides[1][1] + GAP
    canvas.arrow((sides[1][1], y), (fork, y), tip=False)
    ends = []
    for height, items in ((y - 44, [('ES2D: atrous scan', 'scan'), ('SE', 'attention')]),
                          (y + 44, [('3×3 depthwise, BN, GELU, 1×1', 'conv'), ('SE', 'attention')])):
        canvas.arrow((fork, y), (fork, height), (fork + GAP, height))
        ends.append((canvas.chain(fork + GAP, height, items)[1][1], height))
    join = max(end for end, _ in ends) + 30
    for end, height in ends:
        canvas.arrow((end, height), (join, height), (join, y + (-10 if height < y else 10)))
    canvas.operation(join, y, '+')
    tail = join + 10
    canvas.arrow((tail, y), (tail + GAP, y))
    right = canvas.chain(tail + GAP, y, [('+', 'op'), ('output', 'note')])
    canvas.residual(sides[1][0] - GAP / 2 - 2, sum(right[0]) / 2, y, 84)
    canvas.text(fork + GAP, y + 84, 'Both branches pass the same SE (squeeze-and-excitation).', 'start', 12)
    return canvas


def mamba_vision() -> Canvas:
    canvas = Canvas('MambaVision: stages and mixer')
    canvas.chain(12, 40, [('image', 'note'), ('stem, 4×', 'conv'), ('conv block × 1', 'conv'),
                          ('conv block × 3', 'conv'), ('scan × 4\nattention × 4', 'scan'),
                          ('scan × 2\nattention × 2', 'scan')])
    canvas.text(12, 82, 'T; a 3×3 convolution of stride 2 between the stages, windows in the last two.', 'start', 12)
    canvas.text(12, 126, 'Mixer of a scanning block, on the tokens of a window', 'start', 14)
    y = 186
    sides = canvas.chain(12, y, [('tokens', 'note'), ('linear', 'conv'), ('depthwise, 3 tokens', 'conv'),
                                 ('SiLU, split', 'act')])
    fork = sides[3][1]
    scan = canvas.box(fork + 50, y - 26, 'scan', 'scan', 80)
    canvas.arrow((fork, y), (fork + 20, y), (fork + 20, y - 26), (fork + 50, y - 26))
    join = scan[1] + 30
    canvas.arrow((scan[1], y - 26), (join, y - 26), (join, y - 17))
    canvas.arrow((fork + 20, y), (fork + 20, y + 30), (join, y + 30), (join, y + 17))
    canvas.text(fork + 30, y - 32, 'x', size=12)
    canvas.text(fork + 30, y + 26, 'z', size=12)
    last = canvas.box(join - 24, y, 'concat', 'map')
    canvas.arrow((last[1], y), (last[1] + GAP, y))
    canvas.chain(last[1] + GAP, y, [('linear', 'conv'), ('output', 'note')])
    return canvas


def vim() -> Canvas:
    canvas = Canvas('Vim: a sequence of patches, scanned forward and backward')
    canvas.chain(12, 34, [('image', 'note'), ('16×16 patches', 'conv'), ('+ positions', 'norm'),
                          ('Vim block × 24', 'scan'), ('simple feature pyramid', 'conv'), ('P2 … P6', 'note')])
    canvas.text(12, 86, 'Mixer of a block', 'start', 14)
    y = 166
    left = canvas.chain(12, y, [('tokens', 'note'), ('linear: x, z', 'conv')])
    fork = left[1][1] + GAP
    canvas.arrow((left[1][1], y), (fork, y), tip=False)
    ends = []
    for height, items in ((y - 44, [('conv, SiLU', 'conv'), ('scan →', 'scan'), ('× SiLU(z)', 'act')]),
                          (y + 44, [('reversed', 'norm'), ('conv, SiLU', 'conv'), ('scan →', 'scan'),
                                    ('× SiLU(z)', 'act'), ('reversed', 'norm')])):
        canvas.arrow((fork, y), (fork, height), (fork + GAP, height))
        ends.append((canvas.chain(fork + GAP, height, items)[len(items) - 1][1], height))
    join = max(end for end, _ in ends) + 26
    for end, height in ends:
        canvas.arrow((end, height), (join, height), (join, y + (-10 if height < y else 10)))
    canvas.operation(join, y, '+')
    canvas.arrow((join + 10, y), (join + 10 + GAP, y))
    canvas.chain(join + 10 + GAP, y, [('/ 2', 'map'), ('linear', 'conv')])
    return canvas


def local_mamba() -> Canvas:
    canvas = Canvas('LocalMamba: searched directions, each with a gate of its channels')
    y = 192
    left = canvas.chain(12, y, [('1×1, split', 'conv'), ('3×3, depthwise', 'conv'), ('SiLU', 'act')])
    x = left[2][1]
    fork, grid = x + 20, x + 46
    canvas.arrow((x, y), (fork, y), tip=False)
    join = grid + 78 + GAP + 78 + 26
    for number, direction in enumerate(('h', 'v_flip', 'w2', 'w2_flip')):
        centre = 50 + 95 * number
        canvas.arrow((fork, y), (fork, centre), (grid, centre))
        canvas.order(grid, centre - 39, 78, 6, [way(direction, 6)], '')
        gate = canvas.box(grid + 78 + GAP, centre, 'gate', 'attention', 78)
        canvas.arrow((grid + 78, centre), (gate[0], centre))
        canvas.arrow((gate[1], centre), (join, centre), (join, y + (-10 if centre < y else 10)))
    canvas.operation(join, y, '+')
    canvas.arrow((join + 10, y), (join + 10 + GAP, y))
    right = canvas.chain(join + 10 + GAP, y, [('LN', 'norm'), ('× SiLU(z)', 'act'), ('1×1', 'conv')])
    low = 50 + 95 * 3 + 62
    canvas.arrow((left[0][0] + 50, y + 17), (left[0][0] + 50, low), (sum(right[1]) / 2, low),
                 (sum(right[1]) / 2, y + 17))
    canvas.text(left[0][0] + 62, low - 8, 'z', size=12)
    return canvas


DRAWINGS: tuple[Callable[[], Canvas], ...] = (
    directions, mamba_yolo, odss_block, ss2d, vss_block, efficient_vmamba, mamba_vision, vim, local_mamba)
"""Each draws the file of its name."""

if __name__ == '__main__':
    for draw in DRAWINGS:
        (FOLDER / f'{draw.__name__}.svg').write_text(draw().svg(), encoding='utf-8')
