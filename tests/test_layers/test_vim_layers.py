"""Vim's layers against their formulas, written out."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmmamba.layers import MambaBranch, PositionedPatches, VimBlock, VimMixer
from mmmamba.layers.vim import resize_bicubic, rope_tables, rotate


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def by_hand(branch: MambaBranch, xs: Tensor, zs: Tensor) -> Tensor:
    """The branch token by token; (L, D)."""
    rank, states, _ = branch.sizes
    kernel, padded = branch.conv.weight[:, 0, 0].T, F.pad(xs, (0, 0, 3, 0))
    state, ys = torch.zeros(len(branch.D), states), []
    for t, z in enumerate(zs):
        u = F.silu(branch.conv.bias + sum(kernel[k] * padded[t + k] for k in range(4)))
        dt, B, C = (branch.x_proj.weight @ u).split([rank, states, states])
        step = F.softplus(branch.dt_proj.weight @ dt + branch.dt_bias)
        state = torch.exp(-step[:, None] * branch.A_log.exp()) * state + (step * u)[:, None] * B
        ys.append((state @ C + branch.D * u) * F.silu(z))
    return torch.stack(ys)


@torch.no_grad()
@pytest.mark.parametrize('size', [(1, 1), (1, 3), (5, 4)])
@pytest.mark.parametrize('halve', [True, False])
@pytest.mark.parametrize('backend', ['reference', None])
def test_mixer_is_its_formula(size, halve, backend):
    mixer = VimMixer(32, d_state=5, halve=halve, scan_backend=backend)
    assert mixer.ahead.A_log.shape == (64, 5) and mixer.ahead.sizes == (2, 5, 5)
    inputs, expected = torch.randn(2, *size, 32), []
    for tokens in inputs.flatten(1, 2):
        x, z = (tokens @ mixer.in_proj.weight.T).chunk(2, dim=1)
        y = by_hand(mixer.ahead, x, z) + by_hand(mixer.back, x.flip(0), z.flip(0)).flip(0)
        expected.append(y @ mixer.out_proj.weight.T / (2 if halve else 1))
    torch.testing.assert_close(mixer(inputs), torch.stack(expected).view(inputs.shape))


def test_the_branch_starts_as_mamba_and_names_an_unknown_backend():
    branch = MambaBranch(32, rank=2)
    torch.testing.assert_close(branch.A_log.exp()[3], torch.arange(1.0, 17))
    step = F.softplus(branch.dt_bias)
    assert step.min() > 0.9e-3 and step.max() < 1.1e-1
    with pytest.raises(ValueError, match='nonsense'):
        MambaBranch(32, rank=2, scan_backend='nonsense')(torch.randn(1, 4, 32), torch.randn(1, 4, 32))


@pytest.mark.parametrize('height, width', [(1, 1), (3, 5), (14, 14)])
def test_rotations_are_by_row_and_column(height, width):
    like = torch.empty(0, dtype=torch.float64)
    x = torch.randn(2, height, width, 16, dtype=torch.float64)
    turned = rotate(x, *rope_tables(height, width, 16, like))
    for row in range(height):
        for column in range(width):
            for pair in range(8):
                position = 14 * row / height if pair < 4 else 14 * column / width
                angle = position * 10000**(-2 * (pair % 4) / 8)
                a, b = x[:, row, column, 2 * pair], x[:, row, column, 2 * pair + 1]
                expected = torch.stack([a * math.cos(angle) - b * math.sin(angle),
                                        b * math.cos(angle) + a * math.sin(angle)], dim=-1)
                torch.testing.assert_close(turned[:, row, column, 2 * pair:2 * pair + 2], expected)


def test_block_adds_rotates_and_mixes():
    block = VimBlock(nn.Linear(16, 16), nn.RMSNorm(16, eps=1e-5))
    hidden, residual = torch.randn(2, 2, 3, 5, 16)
    tables = rope_tables(3, 5, 16, hidden)
    for rope in (None, tables):
        total = hidden + residual if rope is None else rotate(hidden, *rope) + rotate(residual, *rope)
        new_hidden, new_residual = block(hidden, residual, rope)
        torch.testing.assert_close(new_residual, total)
        normalised = total * (total.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * block.norm.weight
        torch.testing.assert_close(new_hidden, block.mixer(normalised))
    dropped = VimBlock(nn.Linear(16, 16), nn.RMSNorm(16, eps=1e-5), drop_path=0.999).train()
    torch.testing.assert_close(dropped(hidden, residual)[1], residual)


def test_residual_stays_float32_in_mixed_precision():
    block = VimBlock(VimMixer(16), nn.RMSNorm(16, eps=1e-5))
    with torch.autocast('cpu', torch.bfloat16):
        hidden, residual = block(torch.randn(1, 3, 5, 16).bfloat16(), torch.randn(1, 3, 5, 16))
    assert (hidden.dtype, residual.dtype) == (torch.bfloat16, torch.float32)


@torch.no_grad()
@pytest.mark.parametrize('size', [(1, 1), (33, 16), (32, 48)])
def test_patches_are_padded_and_positions_resized(size):
    patches = PositionedPatches(3, 8, (32, 40))
    assert patches.pos_embed.shape == (1, 8, 2, 3)
    image = torch.randn(2, 3, *size)
    rows, columns = (-(-side // 16) for side in size)
    tokens = patches(image)
    assert tokens.shape == (2, rows, columns, 8)
    padded = F.pad(image, (0, 16 * columns - size[1], 0, 16 * rows - size[0]))
    positions = F.interpolate(patches.pos_embed, (rows, columns), mode='bicubic')
    torch.testing.assert_close(tokens, (F.conv2d(padded, patches.proj.weight, patches.proj.bias, 16) + positions)
                               .permute(0, 2, 3, 1))


def test_positions_of_the_same_grid_are_returned_and_of_halves_computed_in_float32():
    maps = torch.randn(1, 8, 2, 3)
    assert resize_bicubic(maps, 2, 3) is maps
    half = resize_bicubic(maps.half(), 4, 4)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half, resize_bicubic(maps.half().float(), 4, 4).half())
