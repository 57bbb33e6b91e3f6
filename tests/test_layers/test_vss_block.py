"""The VSS block, and the MLPs within the passes of their norm and residual."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmmamba.layers import VSSBlock
from mmmamba.ops import ss2d_scan


def randomise(module: nn.Module) -> None:
    """Norms that are not the identity, biases that are not zero."""
    for name, parameter in module.named_parameters():
        if 'norm' in name or name.endswith('bias'):
            nn.init.normal_(parameter, mean=float(name.endswith('weight')), std=0.3)


def test_vss_block_follows_its_formula():
    torch.manual_seed(0)
    block = VSSBlock(12, ssm_ratio=2, d_state=2)
    randomise(block)
    x = torch.randn(2, 12, 5, 4)

    def layer_norm(x, norm):
        channels_last = x.permute(0, 2, 3, 1)
        return F.layer_norm(channels_last, (x.shape[1],), norm.weight, norm.bias, 1e-5).permute(0, 3, 1, 2)

    ss2d, mlp = block.ss2d, block.mlp
    u = F.conv2d(ss2d.in_proj(layer_norm(x, block.norm1)), ss2d.conv2d.weight, None, padding=1, groups=24)
    scanned = ss2d_scan(F.silu(u), ss2d.x_proj_weight, ss2d.dt_projs_weight, ss2d.dt_projs_bias, ss2d.A_logs, ss2d.Ds,
                        backend='reference')
    expected = x + ss2d.out_proj(layer_norm(scanned, ss2d.out_norm))
    expected = expected + mlp.fc2(F.gelu(mlp.fc1(layer_norm(expected, block.norm2))))
    torch.testing.assert_close(block(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(block(x), expected)


def test_vss_block_starts_as_the_reference_does():
    torch.manual_seed(0)
    block = VSSBlock(64)
    for linear in (block.ss2d.in_proj, block.ss2d.out_proj, block.mlp.fc1, block.mlp.fc2):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert linear.bias is None or (linear.bias == 0).all()
    step = F.softplus(block.ss2d.dt_projs_bias)
    assert (block.ss2d.A_logs == 0).all()  # the only state: A = -1
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 0.1 * 1.001


def test_vss_block_under_float16_autocast_does_not_overflow_before_its_norm():
    torch.manual_seed(0)
    block = VSSBlock(16)
    nn.init.constant_(block.ss2d.Ds, 1e6)
    x = torch.randn(1, 16, 5, 4)
    with torch.autocast('cpu', torch.float16):
        out = block(x)
    assert out.isfinite().all()
    torch.testing.assert_close(out.float(), block(x), rtol=0.05, atol=0.05)


def test_drop_path_drops_a_branch_of_the_block():
    torch.manual_seed(0)
    block = VSSBlock(8, drop_path=0.5).train()
    x = torch.randn(64, 8, 2, 2)
    out = block(x)
    untouched = (out == x).flatten(1).all(1).float().mean().item()
    assert untouched == pytest.approx(0.25, abs=0.15)
    assert not (block.eval()(x) == x).flatten(1).all(1).any()
