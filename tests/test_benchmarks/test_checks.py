"""The checks find what they are for."""
from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from benchmarks import checks
from benchmarks.contenders import contenders

CPU = torch.device('cpu')
GOOD = contenders()['cpu']  # gives the same in every run, which PyTorch's own indexing does not promise
pytestmark = pytest.mark.skipif(GOOD.unavailable() is not None, reason=str(GOOD.unavailable()))


def broken(change):
    return replace(GOOD, name='broken', run=lambda x, *inputs: change(GOOD.run(x, *inputs), x))


def failures(case, backend):
    cases = [c for make in (checks.agreement_cases, checks.integration_cases) for c in make(backend, CPU)]
    chosen = [c for c in cases if case in c.name]
    assert chosen
    return checks.run_cases(chosen).failures


def test_a_good_backend_passes():
    for case in ('float32, 2 x 5 x 7 x 3', 'float32, 0 x 4', 'bfloat16', 'deterministic', 'autocast'):
        assert failures(case, GOOD) == [], case


def test_a_wrong_gradient_is_found():
    found = failures('2 x 5 x 7 x 3', broken(lambda y, x: y + x - x.detach()))
    assert len(found) == 2 and all('grad_x has a relative error' in text for text in found)


@pytest.mark.parametrize('case, change', [
    ('1 x 24 x 4 x 17', lambda y, x: y * (1 + 1e-4)),
    ('deterministic', lambda y, x: y + 1e-6 * torch.rand_like(y)),
    ('autocast', lambda y, x: y + x.flatten(0, 2) @ x.flatten(0, 2).t() @ x.flatten(0, 2).view_as(x)),
    ('320 x 321', lambda y, x: y * torch.ones(321).index_fill(0, torch.tensor([320]), 0)),
])
def test_a_broken_backend_fails(case, change):
    assert failures(case, broken(change))


def test_a_scan_that_breaks_the_graph_is_found():
    backend = replace(GOOD, run=lambda x, *inputs: x if x.sum() > 0 else -x)
    (found,) = failures('compile', backend)
    assert ('data-dependent' if torch.__version__ >= '2.11' else 'dynamic control flow') in found.lower()


def test_a_corner_of_a_map_is_what_it_is_alone():
    checks._huge(GOOD, CPU, 20)
    with pytest.raises(AssertionError, match='relative error'):
        checks._huge(broken(lambda y, x: y * (x.shape[-1] == 8)), CPU, 20)


def test_a_failure_does_not_stop_the_others_but_the_time_does():
    def fails():
        raise RuntimeError('no')

    cases = [checks.Case('a', fails), checks.Case('b', lambda: None)]
    assert checks.run_cases(cases) == (1, ['a: RuntimeError: no'], 0)
    assert checks.run_cases(cases, seconds=-1) == (0, [], 2)


def test_one_group_is_checked():
    (case,) = (case for case in checks.sequence_cases(GOOD, CPU) if 'groups 1' in case.name)
    case.run()


def test_a_network_in_half_the_precision_is_checked(monkeypatch):
    _, half = checks.network_cases('mamba-yolo_t', CPU)
    half.run()
    monkeypatch.setattr(checks, 'fuse', lambda network: network.apply(_overflow))
    (found,) = checks.run_cases([half]).failures
    assert 'output 0 has a relative error of nan' in found


def _overflow(layer):
    if isinstance(layer, torch.nn.Conv2d):
        torch.nn.init.constant_(layer.weight, 1e38)
