"""LocalMamba's layers against their formulas, token by token, on maps of any size; the released inverse of columns."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmmamba.errors import InputError
from mmmamba.layers import LocalSS2D, LocalVimMixer, LocalVSSBlock, SqueezeExcitation

ALL = ('h', 'h_flip', 'v', 'v_flip', 'w2', 'w2_flip', 'w7', 'w7_flip')
SIZES = [(1, 1), (1, 3), (2, 2), (5, 4), (7, 9)]  # less than a window, odd, and of several windows


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def visits(direction: str, height: int, width: int) -> list[tuple[int, int]]:
    """Row and column of every token, those of padding included."""
    name, _, flip = direction.partition('_')
    if name == 'h':
        order = [(row, column) for row in range(height) for column in range(width)]
    elif name == 'v':
        order = [(row, column) for column in range(width) for row in range(height)]
    else:
        side = int(name[1:])
        order = [(top + row, left + column) for top in range(0, height, side) for left in range(0, width, side)
                 for row in range(side) for column in range(side)]
    return order[::-1] if flip else order


def gate_by_hand(gate: SqueezeExcitation, y: Tensor) -> Tensor:
    """y (H, W, D) times the gate of its channels."""
    mean = F.layer_norm(y, y.shape[2:], gate.norm.weight, gate.norm.bias, 1e-5).mean((0, 1))
    hidden = F.gelu(gate.reduce.weight[:, :, 0, 0] @ mean + gate.reduce.bias)
    return y * torch.sigmoid(gate.expand.weight[:, :, 0, 0] @ hidden + gate.expand.bias)


def scan_by_hand(layer: LocalSS2D, u: Tensor, k: int) -> Tensor:
    """Direction k over u (H, W, D). A token of padding has no input: the state decays by the bias's step alone."""
    height, width, channels = u.shape
    states, rank = layer.A_logs.shape[1], layer.dt_projs_weight.shape[2]
    A, D = (parameter.unflatten(0, (-1, channels))[k] for parameter in (-layer.A_logs.exp(), layer.Ds))
    state, y = u.new_zeros(channels, states), torch.empty_like(u)
    for row, column in visits(layer.directions[k], height, width):
        if row >= height or column >= width:
            state = state * torch.exp(F.softplus(layer.dt_projs_bias[k])[:, None] * A)
            continue
        token = u[row, column]
        dt, B, C = (layer.x_proj_weight[k] @ token).split([rank, states, states])
        step = F.softplus(layer.dt_projs_weight[k] @ dt + layer.dt_projs_bias[k])
        state = torch.exp(step[:, None] * A) * state + (step * token)[:, None] * B
        y[row, column] = state @ C + D * token
    return y


@torch.no_grad()
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('directions', [ALL[:4], ALL[4:], ('w7', )])
def test_ss2d_is_its_formula(size, directions):
    layer = LocalSS2D(8, directions).double()
    torch.nn.init.normal_(layer.dt_projs_bias)  # steps of order 1, so that padding counts
    x, expected = torch.randn(2, 8, *size, dtype=torch.float64), []
    mapped, z = layer.in_proj(x).chunk(2, dim=1)
    u = F.silu(F.conv2d(mapped, layer.conv2d.weight, layer.conv2d.bias, padding=1, groups=16)).permute(0, 2, 3, 1)
    for image in u:
        y = sum(gate_by_hand(layer.gate, scan_by_hand(layer, image, k)) for k in range(len(directions)))
        expected.append(F.layer_norm(y, (16, ), layer.out_norm.weight, layer.out_norm.bias))
    torch.testing.assert_close(layer(x), layer.out_proj(torch.stack(expected).permute(0, 3, 1, 2) * F.silu(z)))


def branch_by_hand(mixer: LocalVimMixer, k: int, x: Tensor, z: Tensor) -> Tensor:
    """Branch k over x and z (H, W, D). The tokens of padding are zeros before the convolution, which fills them."""
    height, width, channels = x.shape
    branch, y = mixer.branches[k], torch.empty_like(x)
    rank, states, _ = branch.sizes
    tokens, state = [x.new_zeros(channels)] * 3, x.new_zeros(channels, states)
    for row, column in visits(mixer.directions[k], height, width):
        inside = row < height and column < width
        tokens.append(x[row, column] if inside else x.new_zeros(channels))
        u = F.silu(branch.conv.bias + sum(branch.conv.weight[:, 0, 0, i] * tokens[i - 4] for i in range(4)))
        dt, B, C = (branch.x_proj.weight @ u).split([rank, states, states])
        step = F.softplus(branch.dt_proj.weight @ dt + branch.dt_bias)
        state = torch.exp(-step[:, None] * branch.A_log.exp()) * state + (step * u)[:, None] * B
        if inside:
            y[row, column] = (state @ C + branch.D * u) * F.silu(z[row, column])
    return y


@torch.no_grad()
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('directions', [ALL[:4], ALL[4:], ('w7', )])
def test_vim_mixer_is_its_formula(size, directions):
    mixer = LocalVimMixer(16, directions, d_state=3).double()
    inputs, expected = torch.randn(2, *size, 16, dtype=torch.float64), []
    for xz in inputs @ mixer.in_proj.weight.T:
        x, z = xz.chunk(2, dim=2)
        y = sum(gate_by_hand(mixer.gate, branch_by_hand(mixer, k, x, z)) for k in range(len(directions)))
        expected.append(y @ mixer.out_proj.weight.T)
    torch.testing.assert_close(mixer(inputs), torch.stack(expected))


@pytest.mark.parametrize('make, shape', [
    (lambda: LocalSS2D(8, ALL), (2, 8, 3, 5)), (lambda: LocalVimMixer(8, ALL), (2, 3, 5, 8))])
def test_gradients_are_those_of_differences(make, shape):
    layer, x = make().double(), torch.randn(shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x).square().sum(), x, fast_mode=True)
    layer(x).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in layer.parameters())


@torch.no_grad()
@pytest.mark.parametrize('size, square', [((4, 4), True), ((1, 1), True), ((4, 6), False), ((3, 2), False)])
@pytest.mark.parametrize('directions', [ALL[:4], ALL[4:]])
def test_released_columns_scramble_columns_of_maps_that_are_not_square(size, square, directions):
    layer, released = (LocalSS2D(8, directions, released_columns) for released_columns in (False, True))
    released.load_state_dict(layer.state_dict())
    x = torch.randn(2, 8, *size)
    assert torch.allclose(layer(x), released(x), atol=1e-6) == (square or not {'v', 'v_flip'} & set(directions))


@torch.no_grad()
def test_released_columns_put_token_i_j_of_the_map_where_the_public_code_does():
    """Out of a scan without memory, so that pixels keep their values, but for their places."""
    layer = LocalSS2D(8, ('v', ), released_columns=True)
    layer.x_proj_weight.zero_()
    layer.gate = torch.nn.Identity()
    u = torch.arange(6.0).view(1, 1, 2, 3).expand(1, 16, 2, 3).contiguous()
    s = u[0, 0].T.flatten()  # in the order of the scan
    expected = torch.stack([s[i * 3 + j] for j in range(3) for i in range(2)]).view(2, 3)
    torch.testing.assert_close(layer.scan(u)[0, 0], expected)


def test_block_adds_what_it_does_not_drop():
    block = LocalVSSBlock(8, ALL[:4])
    x = torch.randn(2, 8, 5, 4)
    torch.testing.assert_close(block(x), x + block.ss2d(block.norm(x)))
    torch.testing.assert_close(LocalVSSBlock(8, ALL[:4], drop_path=0.999).train()(x), x)


@pytest.mark.parametrize('kind', [LocalSS2D, LocalVimMixer])
def test_directions_have_known_names(kind):
    with pytest.raises(InputError, match="no direction named 'w3'"):
        kind(8, ('h', 'w3'))
    with pytest.raises(ValueError, match='nonsense'):
        layer = kind(8, ('h', ), scan_backend='nonsense')
        layer(torch.randn(1, 8, 8, 8))


@torch.no_grad()
def test_directions_that_skip_pixels_leave_zeros_for_the_mixer_too():
    mixer, inputs = LocalVimMixer(16, ('a01', )), torch.randn(1, 4, 5, 16)
    out = mixer(inputs)
    assert out[:, ::2, 1::2].abs().min() > 0
    assert not out[:, 1::2].any() and not out[:, ::2, ::2].any()
