"""benchmarks.scale: its formulas where the result is known, and what it counts and measures."""
from __future__ import annotations

import pytest

from benchmarks import scale, scale_cpu

RATES = {'training': 50.0, 'validation': 400.0, 'scoring': 50.0}


def test_an_all_reduce_sends_nearly_twice_the_bytes_at_the_slowest_link():
    for gpus, network, bandwidth in ((8, scale.FAST, scale.NVLINK), (64, scale.FAST, scale.INFINIBAND),
                                     (64, scale.SLOW, scale.ETHERNET)):
        expected = 2 * (gpus - 1) / gpus * 1e12 / (scale.REACHED * bandwidth)
        assert scale.all_reduce(1e12, gpus, network) == pytest.approx(expected, rel=1e-4)
    assert scale.all_reduce(4, 512) == pytest.approx(6.8e-6 + 2 * (7 * 0.6e-6 + 6 * 5e-6), rel=1e-3)


def test_a_step_waits_for_one_bucket_or_for_what_its_backward_pass_does_not_hide():
    bucket = scale.BUCKETS[0]
    assert scale.waited(10 * bucket, 100, 64) == scale.all_reduce(bucket, 64)
    assert scale.waited(10 * bucket, 0, 64) == pytest.approx(10 * scale.all_reduce(bucket, 64))
    assert scale.waited(bucket / 2, 0, 64) == scale.all_reduce(bucket / 2, 64)


def test_groups_of_a_machine_do_not_use_the_network():
    norms = [64, 128]
    assert scale.sync_norms(norms, 8, scale.SLOW) == scale.sync_norms(norms, 8, scale.FAST)
    assert scale.sync_norms(norms, 512) > 10 * scale.sync_norms(norms, 8)


@pytest.mark.usefixtures('mmdet_scope')
def test_counts_the_model_and_its_recipe():
    model = scale.read_model('t')
    assert model.gradients == 5_442_612 - 16  # of which DFL's bins are not trained
    assert (model.epochs, model.validations, model.workers) == (300, 30, 8)
    runs, _ = scale.tables(RATES, ['t'])
    assert [row[1] for row in runs.rows] == ['8 x 64', '64 x 8', '512 x 1']
    efficiency = [int(row[-1].split()[0]) for row in runs.rows]
    assert efficiency[0] == 100 and efficiency == sorted(efficiency, reverse=True)


@pytest.mark.usefixtures('mmdet_scope')
def test_measures_a_core(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_cpu, '_PICTURES', 2)
    rows = scale_cpu.measure(tmp_path / 'data', 4)
    assert [row['what'] for row in rows] == ['training', 'validation', 'scoring']
    assert all(row['images'] == 4 and row['images_per_s'] > 0 for row in rows)
