"""Vim's own arguments, any image size, mixed precision, stochastic depth, layers for decaying rates."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmmamba.errors import InputError
from mmmamba.models.backbones import Vim


def build(**settings) -> Vim:
    torch.manual_seed(0)
    return Vim(**{'depth': 3, 'width': 16, 'img_size': 64, **settings})


def test_arguments_have_their_effect():
    plain, x = build().eval(), torch.rand(1, 3, 64, 96)
    out, = plain(x)
    for settings in (dict(rope=False), dict(halve=False)):
        other = build(**settings).eval()
        assert other.state_dict().keys() == plain.state_dict().keys()
        assert not torch.allclose(other(x)[0], out, rtol=1e-3)
    assert build().stem.pos_embed.shape == (1, 16, 4, 4)
    assert build(img_size=(40, 64)).stem.pos_embed.shape == (1, 16, 3, 4)
    assert build(in_channels=4)(torch.rand(1, 4, 32, 32))
    rates = [block.drop_path.drop_prob for block in build(depth=4, drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0, 0.1, 0.2])  # of the state before each; the last is not dropped
    assert build(rope=False, width=18)(x)
    with pytest.raises(InputError, match='width that is a multiple of 4, got 18'):
        build(width=18)
    with pytest.raises(InputError, match='img_size must be 2 positive integers'):
        build(img_size=(64, 0))
    with pytest.raises(InputError, match='img_size must be 2 positive integers'):
        build(img_size=(64, ))


@torch.no_grad()
def test_padding_is_zeros_at_the_bottom_and_the_right():
    model, x = build().eval(), torch.rand(2, 3, 33, 50)
    torch.testing.assert_close(model(x)[0], model(F.pad(x, (0, 14, 0, 15)))[0])


@torch.no_grad()
def test_outputs_are_those_of_the_blocks():
    several = build(out_indices=(0, 2)).eval()
    first, last = several(torch.ones(1, 3, 48, 32))
    shallow = build(depth=3, out_indices=(0, )).eval()
    shallow.load_state_dict({key: value for key, value in several.state_dict().items()
                             if not key.startswith(('blocks.1', 'blocks.2'))})
    torch.testing.assert_close(shallow(torch.ones(1, 3, 48, 32))[0], first)
    assert not torch.allclose(first, last)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize('with_cp', [False, True])
def test_autocast_is_near_float32_and_has_finite_gradients(dtype, tolerance, with_cp):
    model, x = build(with_cp=with_cp), torch.rand(2, 3, 64, 96)
    expected, = model(x)
    with torch.autocast('cpu', dtype):
        out, = model(x)
    assert out.dtype == torch.float32 and (out - expected).norm() < tolerance * expected.norm()
    out.square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())


@torch.no_grad()
def test_flops_include_both_scans_of_every_block():
    model = build().eval()
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(2, 3, 48, 64))
    scans = [flops for operator, flops in counter.get_flop_counts()['Global'].items() if 'scan' in str(operator)]
    tokens, channels, states = 2 * 3 * 4, 2 * 16, 16
    assert scans == [2 * 3 * tokens * channels * (9 * states + 2)]


def test_layers_for_decaying_rates():
    model = build()
    layers = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {count for _, count in layers.values()} == {5}
    assert {name.split('.')[0]: set() for name in layers}.keys() == {'stem', 'blocks'}
    for name, (layer, _) in layers.items():
        assert layer == (0 if name.startswith('stem.') else int(name.split('.')[1]) + 1)
    assert model.get_layer_depth('neck.levels.0.0.weight', 'backbone.') == (4, 5)
