"""The benchmark of mixed detectors, and the table that is published of it."""
from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks import mixing
from mmmamba.demo.composer import Composition, compose

ROOT = Path(__file__).parents[2]


def test_published_table_is_that_of_the_file_and_has_every_config():
    with (ROOT / 'benchmarks/mixing.csv').open(newline='', encoding='utf-8') as file:
        rows = list(csv.DictReader(file))
    assert [row['config'] for row in rows] == [Path(name).stem for name in mixing.config_names()]
    assert mixing.markdown(rows) in (ROOT / 'docs/mixing.md').read_text(encoding='utf-8')


def test_every_model_of_the_table_learns():
    with (ROOT / 'benchmarks/mixing.csv').open(newline='', encoding='utf-8') as file:
        for row in csv.DictReader(file):
            peak = float(row['highest_loss'] or row['first_loss'])
            assert float(row['last_loss']) < 0.75 * peak, row['config']


@pytest.mark.usefixtures('mmdet_scope')
def test_measures_a_config(tmp_path):
    compose(tmp_path / 'data', Composition(train_images=2, val_images=1, image_size=128, digit_size=(32, 64)))
    row = mixing.measure('odss_pafpn/cspnext-s_odss-pafpn_8xb64-300e_coco.py', tmp_path / 'data', steps=4, lr=2e-4)
    assert (row['height'], row['width']) == mixing.YOLO_SIZE and row['scan_gflops'] > 0
    assert row['first_loss'] > row['last_loss'] > 0
    assert mixing.markdown([row]).count('\n') == 2
