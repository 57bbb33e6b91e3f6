"""Hooks on a layer within a block are called, and an adapter in its place computes and is trained."""
from __future__ import annotations

import inspect
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from mmmamba import layers

MAP, TOKENS, GRID = (2, 16, 5, 6), (3, 9, 16), (2, 5, 6, 16)
LAYERS = {
    'attention': (lambda: layers.Attention(16, 2), TOKENS),
    'c2f': (lambda: layers.C2f(16, 16), MAP),
    'conv_norm_act': (lambda: layers.ConvNormAct(16, 8), MAP),
    'conv_stem': (lambda: layers.ConvStem(16, 8, 12), MAP),
    'evss': (lambda: layers.EVSSBlock(16), MAP),
    'inverted_residual': (lambda: layers.InvertedResidual(16), MAP),
    'ls': (lambda: layers.LSBlock(16), MAP),
    'local_vim_mixer': (lambda: layers.LocalVimMixer(16, ('h', 'w2', 'v_flip')), GRID),
    'local_vss': (lambda: layers.LocalVSSBlock(16, ('h', 'w2', 'v_flip')), MAP),
    'local_ss2d': (lambda: layers.LocalSS2D(16, ('h', 'w2', 'v_flip')), MAP),
    'mamba_branch': (lambda: layers.MambaBranch(16, rank=1), TOKENS, TOKENS),
    'mamba_vision': (lambda: layers.MambaVisionBlock(16, layers.Attention(16, 2), layer_scale=0.5), TOKENS),
    'mamba_vision_mixer': (lambda: layers.MambaVisionMixer(16), TOKENS),
    'mask_prototypes': (lambda: layers.MaskPrototypes(16, 8), MAP),
    'odss': (lambda: layers.ODSSBlock(16, 12, num_ss2d=2, local_spatial=True), MAP),
    'patch_embed': (lambda: layers.PatchEmbed(16, 8), MAP),
    'patch_merging': (lambda: layers.PatchMerging(16, 8), MAP),
    'positioned_patches': (lambda: layers.PositionedPatches(16, 8, (16, 32)), MAP),
    'residual_conv': (lambda: layers.ResidualConvBlock(16), MAP),
    'simple_stem': (lambda: layers.SimpleStem(16, 8), MAP),
    'sppf': (lambda: layers.SPPF(16), MAP),
    'squeeze_excitation': (lambda: layers.SqueezeExcitation(16, 4), MAP),
    'ss2d': (lambda: layers.SS2D(16), MAP),
    'ss2d_ungated': (lambda: layers.SS2D(16, gated=False), MAP),
    'vim': (lambda: layers.VimBlock(layers.VimMixer(16), nn.LayerNorm(16)), GRID, GRID),
    'vim_mixer': (lambda: layers.VimMixer(16), GRID),
    'vision_clue_merge': (lambda: layers.VisionClueMerge(16, 8), MAP),
    'vss': (lambda: layers.VSSBlock(16), MAP),
    'windowed': (lambda: layers.Windowed(3, layers.MambaVisionBlock(16, layers.MambaVisionMixer(16))), MAP),
    **{f'mlp_{name}': (lambda mlp=mlp: mlp(16), MAP) for name, mlp in layers.MLPS.items()},
}


def test_every_layer_with_others_in_it_is_here():
    classes = {value for name in layers.__all__ if inspect.isclass(value := getattr(layers, name))}
    assert {type(make()) for make, *_ in LAYERS.values()} == classes - {layers.DropPath, layers.LayerNorm2d}


@pytest.mark.parametrize('make, shapes', [(make, shapes) for make, *shapes in LAYERS.values()], ids=LAYERS)
@torch.no_grad()
def test_every_convolution_and_linear_layer_is_called_once(make, shapes):
    layer, called = make(), Counter()
    names = [name for name, part in layer.named_modules() if isinstance(part, (nn.Conv2d, nn.Linear))]
    for name in names:
        layer.get_submodule(name).register_forward_hook(lambda *_, name=name: called.update([name]))
    layer(*map(torch.randn, shapes))
    # One squeeze-and-excitation is for the two branches of an EVSS block, one gate for the directions of a LocalMamba.
    calls = {name: 2 if name.startswith('se.') and isinstance(layer, layers.EVSSBlock) else 1 for name in names}
    calls.update({name: 3 for name in names if 'gate.' in name})
    assert called == calls


@pytest.mark.parametrize('gated', [True, False])
def test_ss2d_takes_what_its_projection_returns(gated):
    """An adapter around ``in_proj``, with a parameter of its own, counts in the output and gets its gradient."""

    class Scaled(nn.Module):

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.scale = inner, nn.Parameter(torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.scale * self.inner(x)

    torch.manual_seed(0)
    layer, x = layers.SS2D(16, gated=gated), torch.randn(MAP)
    layer.in_proj = Scaled(layer.in_proj)
    out = layer(x)
    out.square().sum().backward()
    assert layer.in_proj.scale.grad.abs() > 0
    layer.in_proj = layer.in_proj.inner
    with torch.no_grad():
        layer.in_proj.weight *= 3
    torch.testing.assert_close(layer(x), out)


class Dropped(nn.Module):
    """A low-rank adapter with dropout, in float64."""

    def __init__(self, inner: nn.Conv2d) -> None:
        super().__init__()
        self.inner, self.dropout = inner, nn.Dropout(0.5)
        self.down = nn.Conv2d(inner.in_channels, 2, 1, bias=False)
        self.up = nn.Conv2d(2, inner.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.up(self.down(self.dropout(x)))


@pytest.mark.parametrize('make, part', [
    (lambda: layers.SS2D(16, scan_backend='torch'), 'in_proj'),
    (lambda: layers.SS2D(16, scan_backend='torch'), 'out_proj'),
    (lambda: layers.MLPS['rg'](16), 'fc2'),
], ids=['in_proj', 'out_proj', 'fc2'])
def test_an_adapter_with_dropout_gets_the_gradient_of_what_it_computed(make, part):
    torch.manual_seed(0)
    layer, x = make(), torch.randn(MAP, dtype=torch.float64)
    setattr(layer, part, Dropped(getattr(layer, part)))
    layer.double()
    weight = getattr(layer, part).up.weight

    def loss() -> Tensor:
        torch.manual_seed(1)
        return layer(x).square().sum()

    value = loss()
    torch.rand(3)  # a backward pass comes when other random numbers have been drawn
    gradient, = torch.autograd.grad(value, weight)
    direction = torch.randn_like(weight)
    with torch.no_grad():
        weight += 1e-6 * direction
        above = loss()
        weight -= 2e-6 * direction
        below = loss()
    torch.testing.assert_close((above - below) / 2e-6, (gradient * direction).sum(), rtol=1e-5, atol=0)
