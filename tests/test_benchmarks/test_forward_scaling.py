from __future__ import annotations

from benchmarks import forward_scaling


def test_measures_a_pass():
    config = forward_scaling.ROOT / 'configs/yolov8/yolov8_n_8xb64-300e_coco.py'
    median, p20, p80, peak = forward_scaling.measure(str(config), 64, 3)
    assert 0 < p20 <= median <= p80 and peak >= 0
