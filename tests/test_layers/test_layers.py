"""What the parity fixtures do not say of the layers."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmmamba.errors import InputError
from mmmamba.layers import MLPS, SS2D, DropPath, LayerNorm2d, ODSSBlock, RGBlock, VisionClueMerge
from mmmamba.layers.ss2d import init_ssm_


def test_layer_norm_2d_normalises_the_channels_of_a_pixel():
    x = torch.randn(2, 6, 3, 5)
    norm = LayerNorm2d(6, eps=1e-5)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    out = norm(x)
    pixel = x[1, :, 2, 4]
    expected = (pixel - pixel.mean()) / (pixel.var(unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(out[1, :, 2, 4], expected)
    assert out.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('size', [(4, 6), (5, 6), (4, 7), (1, 1)])
def test_clue_merge_sees_every_pixel_of_odd_maps(size):
    merge = VisionClueMerge(2, 4).eval()
    x = torch.randn(1, 2, *size, requires_grad=True)
    out = merge(x)
    assert out.shape == (1, 4, (size[0] + 1) // 2, (size[1] + 1) // 2)
    out.sum().backward()
    assert (x.grad != 0).all()


def test_drop_path_keeps_the_mean_and_drops_whole_samples():
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 1, 1))
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out[:, 0] == out[:, 1]).all()
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drop.eval()(out), out)
    with pytest.raises(ValueError, match='drop_prob'):
        DropPath(1.0)


@pytest.mark.parametrize('name', ['mamba_yolo', 'mamba'])
def test_ssm_init(name):
    A_logs, Ds = torch.empty(4 * 96, 16), torch.empty(4 * 96)
    weight, bias = torch.empty(4, 96, 3), torch.empty(4, 96)
    init_ssm_(name, A_logs, Ds, weight, bias)
    assert (Ds == 1).all()
    if name == 'mamba_yolo':
        assert (A_logs == 0).all()
        assert weight.std().item() == pytest.approx(1, abs=0.1)
        assert bias.std().item() == pytest.approx(1, abs=0.2)
    else:
        torch.testing.assert_close(A_logs.exp()[7], torch.arange(1., 17))
        step = F.softplus(bias)
        assert step.min() >= 1e-3 * 0.999 and step.max() <= 0.1 * 1.001
        assert step.median().item() == pytest.approx(1e-2, rel=0.5)  # log-uniform
        assert 0.9 * 3**-0.5 < weight.abs().max() <= 3**-0.5


def test_the_old_name_of_an_ssm_init_is_taken_with_a_warning():
    with pytest.warns(FutureWarning, match='mamba_yolo'):
        block = SS2D(16, ssm_init='reference')
    assert (block.A_logs == 0).all()


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="'mamba'"):
        SS2D(16, ssm_init='zeros')
    with pytest.raises(ValueError, match="'rg'"):
        ODSSBlock(16, 16, mlp='swiglu')
    with pytest.raises(ValueError, match="'gelu'"):
        ODSSBlock(16, 16, gate_act='tanh')


@pytest.mark.parametrize('mlp', MLPS)
@pytest.mark.parametrize('act', ['gelu', 'silu', 'relu'])
def test_mlps_follow_their_formula(mlp, act):
    torch.manual_seed(0)
    block = MLPS[mlp](12, act=act)
    x = torch.randn(2, 12, 5, 4)
    activate = getattr(F, act)
    hidden = block.fc1(x)
    if mlp == 'mlp':
        hidden = activate(hidden)
    elif mlp == 'conv':
        hidden = activate(block.dwconv(hidden))
    elif mlp == 'res_conv':
        hidden = activate(block.dwconv(hidden) + hidden)
    else:
        gate, value = hidden.chunk(2, dim=1)
        if mlp == 'rg':
            gate = block.dwconv(gate) + gate
        hidden = activate(gate) * value
    torch.testing.assert_close(block(x), block.fc2(hidden))


def test_gated_mlps_have_about_the_weights_of_a_plain_one():
    weights = {name: sum(p.numel() for p in make(96).parameters()) for name, make in MLPS.items()}
    assert weights['gated'] == pytest.approx(weights['mlp'], rel=0.02)
    assert weights['rg'] == pytest.approx(weights['gated'], rel=0.05)


def test_odss_block_without_a_branch_is_the_other_alone():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 4)
    no_scan, no_mlp = ODSSBlock(8, 12, num_ss2d=0).eval(), ODSSBlock(8, 12, mlp=None, local_spatial=True).eval()
    for context in (torch.enable_grad(), torch.no_grad()):
        with context:
            projected = no_scan.in_proj(x)
            torch.testing.assert_close(no_scan(x), projected + no_scan.mlp(no_scan.norm2(projected)))
            projected = no_mlp.in_proj(x)
            scanned = no_mlp.ss2d(no_mlp.norm1(no_mlp.local(projected)))
            torch.testing.assert_close(no_mlp(x), projected + scanned)
    neither = ODSSBlock(8, 12, num_ss2d=0, mlp=None, drop_path=0.5).train()
    assert {name.split('.')[0] for name, _ in neither.named_parameters()} == {'in_proj'}
    torch.testing.assert_close(neither(x), neither.in_proj(x))


def test_odss_block_refuses_an_ls_block_without_a_scan():
    with pytest.raises(InputError, match='local_spatial'):
        ODSSBlock(8, 8, num_ss2d=0, local_spatial=True)
    with pytest.raises(InputError, match='num_ss2d must not be negative'):
        ODSSBlock(8, 8, num_ss2d=-1)


def test_checkpointing_changes_neither_outputs_nor_gradients():
    torch.manual_seed(0)
    block = ODSSBlock(8, 12, local_spatial=True, drop_path=0.5).train()
    x = torch.randn(4, 8, 6, 5)
    results = []
    for with_cp in (False, True):
        block.with_cp = with_cp
        block.zero_grad()
        torch.manual_seed(1)
        out = block(x)
        out.square().sum().backward()
        results.append([out.detach(), *(p.grad.clone() for p in block.parameters())])
    for plain, recomputed in zip(*results):
        torch.testing.assert_close(plain, recomputed, rtol=0, atol=0)


def test_checkpointing_counts_a_batch_once_in_the_batch_norms():
    x = torch.randn(2, 8, 4, 4)
    torch.manual_seed(0)
    plain = ODSSBlock(8, 8, local_spatial=True)
    recomputed = ODSSBlock(8, 8, local_spatial=True, with_cp=True)
    recomputed.load_state_dict(plain.state_dict())
    for block in (plain, recomputed):
        block(x).sum().backward()
    for name, value in plain.named_buffers():
        assert torch.equal(value, dict(recomputed.named_buffers())[name]), name


def test_ss2d_under_float16_autocast_does_not_overflow_before_its_norm():
    torch.manual_seed(0)
    layer = SS2D(16)
    torch.nn.init.constant_(layer.Ds, 1e6)
    x = torch.randn(1, 16, 5, 4, requires_grad=True)
    with torch.autocast('cpu', torch.float16):
        out = layer(x)
    assert out.dtype == torch.float16 and out.isfinite().all()
    torch.testing.assert_close(out.float(), layer(x), rtol=0.05, atol=0.05)
    torch.nn.init.constant_(layer.Ds, 6e4)  # a float16, of which four are none
    with torch.no_grad():
        expected, out = layer(x), layer.half()(x.half())
    assert out.dtype == torch.float16
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.05)


def test_what_is_cheap_to_make_again_is_not_kept():
    """Of the RG block's hidden maps, only the two halves that fc1 makes are kept for the backward pass."""
    block, kept = RGBlock(12), []

    def keep(tensor):
        kept.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(torch.randn(1, 12, 5, 7, requires_grad=True)).sum()
    assert kept.count((1, 32, 5, 7)) <= 2, kept


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_ss2d_in_other_precisions(dtype):
    torch.manual_seed(0)
    layer = SS2D(16).eval()
    x = torch.randn(1, 16, 5, 4)
    with torch.no_grad():
        expected = layer(x)
        out = layer.to(dtype)(x.to(dtype))
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), expected, rtol=0.05, atol=0.02)
