"""The table of the ablations' README against the code."""
from __future__ import annotations

import re
from pathlib import Path

import pytest

from mmmamba.analysis import PUBLISHED_SHAPE, model_config
from mmmamba.analysis.model_table import count

FOLDER = Path(__file__).parents[1] / 'configs/mamba_yolo/ablation'
ROWS = {cells[0].strip('` '): [cell.strip() for cell in cells[2:]]
        for line in (FOLDER / 'README.md').read_text(encoding='utf-8').splitlines()
        if line.startswith(('| `', '| the base')) and (cells := line.split('|')[1:-1])}


def test_every_config_has_a_row():
    names = {re.sub(r'mamba-yolo_t_|_8xb64-300e_coco', '', path.stem) for path in FOLDER.glob('*.py')}
    assert set(ROWS) == {'the base', *names}


@pytest.mark.parametrize('name', ROWS)
def test_the_row_is_what_is_counted(name, mmdet_scope):
    path = FOLDER / f'mamba-yolo_t_{name}_8xb64-300e_coco.py'
    if name == 'the base':
        path = FOLDER.parent / 'mamba-yolo_t_8xb64-300e_coco.py'
    cost = count(model_config(str(path)), *PUBLISHED_SHAPE).cost
    flops = [cost.linear_flops, cost.projection_flops, cost.scan_flops]
    assert ROWS[name] == [f'{cost.parameters:,}', *(f'{value / 1e9:.2f}' if value else '–' for value in flops)]
