"""Layers that search their directions: the sum written out, gradients, what is chosen, and which layers take part."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmamba.layers import SS2D, EVSSBlock, LocalSS2D, LocalVimMixer, ODSSBlock, VSSBlock
from mmmamba.layers.direction_search import CANDIDATES, search_directions


def test_each_direction_is_normed_and_weighed():
    torch.manual_seed(0)
    layer = SS2D(6, d_state=4, act='silu').double()
    search_directions(nn.Sequential(layer))
    layer.double()
    with torch.no_grad():
        layer.direction_logits.copy_(torch.linspace(-1, 2, 8))
    u = torch.randn(2, 12, 5, 9, dtype=torch.float64)
    shares = layer.direction_logits.softmax(0)
    expected = torch.zeros_like(u)
    for k, direction in enumerate(CANDIDATES):
        alone = SS2D(6, d_state=4, act='silu', pattern=(direction, )).double()
        for name in ('x_proj_weight', 'dt_projs_weight', 'dt_projs_bias', 'A_logs', 'Ds'):
            of_direction = getattr(layer, name).chunk(8)[k]
            getattr(alone, name).data = of_direction.data
        y = alone.scan(u).permute(0, 2, 3, 1)
        expected += (shares[k] * F.layer_norm(y, (12, ))).permute(0, 3, 1, 2)
    torch.testing.assert_close(layer.scan(u), expected)


@pytest.mark.parametrize('make, size', [
    (lambda: ODSSBlock(8, 8, num_ss2d=2), (2, 8, 3, 4)),
    (lambda: VSSBlock(8), (2, 8, 3, 4)),
    (lambda: LocalSS2D(8, ('h', 'v', 'w2', 'w7')), (2, 8, 3, 4)),
    (lambda: LocalVimMixer(8, ('h', 'v', 'w2', 'w7')), (2, 3, 4, 8)),
])
def test_gradients_reach_every_parameter(make, size):
    model = nn.Sequential(make())
    layers = search_directions(model)
    assert layers and all(layer.directions == CANDIDATES for layer in layers.values())
    model(torch.randn(size)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_the_most_probable_are_chosen():
    layer = SS2D(4)
    search_directions(nn.Sequential(layer))
    with torch.no_grad():
        layer.direction_logits.copy_(torch.tensor([0.0, 3, 1, 0, 0, 2, 0, 4]))
    assert layer.chosen() == ['h_flip', 'v', 'w2_flip', 'w7_flip']
    probabilities = layer.probabilities()
    assert list(probabilities)[:4] == ['w7_flip', 'h_flip', 'w2_flip', 'v'] and len(probabilities) == 8
    assert probabilities['w7_flip'] == pytest.approx(layer.direction_logits.softmax(0)[7].item())
    assert sum(probabilities.values()) == pytest.approx(1)


def test_scans_of_parts_of_the_map_stay():
    block = EVSSBlock(8)
    assert search_directions(block) == {} and type(block.ss2d) is SS2D
