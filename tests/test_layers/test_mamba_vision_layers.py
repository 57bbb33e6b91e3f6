"""MambaVision's layers against their formulas, written out."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.errors import InputError
from mmmamba.layers import Attention, MambaVisionBlock, MambaVisionMixer, Windowed


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def by_hand(mixer: MambaVisionMixer, tokens: Tensor) -> Tensor:
    """The mixer token by token; (L, C)."""
    length, channels = tokens.shape
    inner, states = mixer.A_log.shape
    projected = F.pad(tokens @ mixer.in_proj.weight.T, (0, 0, 1, 1))
    kernel = mixer.conv.weight[:, 0, 0].T  # (3, C)
    xz = F.silu(sum(kernel[i] * projected[i:i + length] for i in range(3)))
    x, z = xz[:, :inner], xz[:, inner:]
    state, ys = torch.zeros(inner, states), []
    for x_t in x:
        dt, B, C = (mixer.x_proj.weight @ x_t).split([channels // 16, states, states])
        step = F.softplus(mixer.dt_proj.weight @ dt + 2 * mixer.dt_proj.bias)
        state = torch.exp(-step[:, None] * mixer.A_log.exp()) * state + (step * x_t)[:, None] * B
        ys.append(state @ C + mixer.D * x_t)
    return torch.cat([torch.stack(ys), z], dim=1) @ mixer.out_proj.weight.T


@torch.no_grad()
@pytest.mark.parametrize('length', [1, 2, 23])
@pytest.mark.parametrize('backend', ['reference', None])
def test_mixer_is_its_formula(length, backend):
    mixer = MambaVisionMixer(32, scan_backend=backend)
    tokens = torch.randn(2, length, 32)
    torch.testing.assert_close(mixer(tokens), torch.stack([by_hand(mixer, window) for window in tokens]))


def test_mixer_arguments():
    mixer = MambaVisionMixer(32, d_state=5)
    assert mixer.A_log.shape == (16, 5) and mixer.x_proj.out_features == 2 + 2 * 5
    torch.testing.assert_close(mixer.A_log.exp()[3], torch.arange(1.0, 6))
    step = F.softplus(mixer.dt_proj.bias)
    assert step.min() > 0.9e-3 and step.max() < 1.1e-1
    with pytest.raises(ValueError, match='nonsense'):
        MambaVisionMixer(32, scan_backend='nonsense')(torch.randn(1, 4, 32))


@torch.no_grad()
def test_mixer_of_halves_scans_in_float32():
    mixer = MambaVisionMixer(32)
    tokens = torch.randn(2, 500, 32)
    expected = mixer(tokens)
    with torch.autocast('cpu', torch.float16):
        out = mixer(tokens)
    assert out.dtype == torch.float16 and (out - expected).norm() < 2e-3 * expected.norm()


@torch.no_grad()
def test_attention_is_that_of_pytorch():
    ours, theirs = Attention(24, 4), nn.MultiheadAttention(24, 4, batch_first=True)
    names = ('qkv.weight', 'qkv.bias', 'proj.weight', 'proj.bias')
    ours.load_state_dict(dict(zip(names, theirs.state_dict().values())))
    nn.init.normal_(ours.qkv.bias)
    theirs.in_proj_bias.copy_(ours.qkv.bias)
    x = torch.randn(3, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x, x, x)[0])
    for num_heads in (5, 0):
        with pytest.raises(InputError, match='num_heads must divide'):
            Attention(24, num_heads)


@torch.no_grad()
def test_block_scales_both_branches():
    block = MambaVisionBlock(16, Attention(16, 2), layer_scale=0.5)
    block.scale2.fill_(2)
    x = torch.randn(2, 5, 16)
    mixed = x + 0.5 * block.mixer(block.norm1(x))
    torch.testing.assert_close(block(x), mixed + 2 * block.mlp(block.norm2(mixed)))
    assert block.mlp[0].out_features == 64 and block.norm1.eps == 1e-5


@pytest.mark.parametrize('height, width', [(6, 9), (5, 7), (1, 1), (2, 10)])
def test_windows_see_their_pixels_and_the_padding(height, width):
    seen = []

    class Look(nn.Module):

        def forward(self, tokens):
            seen.append(tokens)
            return tokens + 1

    x = torch.rand(2, 4, height, width).contiguous(memory_format=torch.channels_last)
    out = Windowed(3, Look(), Look())(x)
    torch.testing.assert_close(out, x + 2)
    rows, columns = -(-height // 3), -(-width // 3)
    padded = F.pad(x, (0, 3 * columns - width, 0, 3 * rows - height))
    windows = [padded[b, :, 3 * r:3 * r + 3, 3 * c:3 * c + 3].flatten(1).T
               for b in range(2) for r in range(rows) for c in range(columns)]
    assert torch.equal(seen[0], torch.stack(windows))
