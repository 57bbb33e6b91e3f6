"""The benchmark of mixed detectors."""
from __future__ import annotations

import pytest

from benchmarks import mixing
from mmmamba.datasets.composed import Composition, compose


@pytest.mark.usefixtures('mmdet_scope')
def test_measures_a_config(tmp_path):
    compose(tmp_path / 'data', Composition(train_images=2, val_images=1, image_size=128, digit_size=(32, 64)))
    row = mixing.measure('odss_pafpn/cspnext-s_odss-pafpn_8xb64-300e_coco.py', tmp_path / 'data', steps=4, lr=2e-4)
    assert (row['height'], row['width']) == mixing.YOLO_SIZE and row['scan_gflops'] > 0
    assert row['first_loss'] > row['last_loss'] > 0
    assert mixing.markdown([row]).count('\n') == 2
