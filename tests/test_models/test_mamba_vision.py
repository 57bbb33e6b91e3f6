"""MambaVision's own arguments, half precision, torch.compile, torch.export and fusing."""
from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.nn.modules.batchnorm import _BatchNorm

import mmmamba  # noqa: F401  (registers the models)
from mmmamba.deploy import fuse
from mmmamba.errors import InputError
from mmmamba.layers import Attention, MambaVisionMixer
from mmmamba.models.backbones import MambaVision

SMALL = dict(widths=(8, 16, 32, 48), depths=(1, 1, 2, 2), window_sizes=(4, 2))


def build(**settings) -> MambaVision:
    torch.manual_seed(0)
    return MambaVision(**{**SMALL, **settings})


def images(batch: int, height: int, width: int, channels: int = 3) -> Tensor:
    return torch.rand(batch, channels, height, width, generator=torch.Generator().manual_seed(0))


def of(kind: type[nn.Module], model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if type(module) is kind]


@pytest.mark.parametrize('depths', [(1, 1, 7, 5), (1, 1, 12, 1)])
def test_scans_in_the_first_half_rounded_up_attention_in_the_rest(depths):
    for depth, stage in zip(depths[2:], build(depths=depths).stages[2:]):
        scans = (depth + 1) // 2
        assert [type(block.mixer) for block in stage] == [MambaVisionMixer] * scans + [Attention] * (depth - scans)


@pytest.mark.parametrize('arch, stem_width, heads, layer_scale', [
    ('t', 32, (8, 16), None), ('t2', 32, (8, 16), None), ('s', 64, (8, 16), None), ('b', 64, (8, 16), 1e-5),
    ('l', 64, (16, 32), 1e-5), ('l2', 64, (16, 32), 1e-5)])
def test_what_an_arch_is_besides_depths_and_widths(arch, stem_width, heads, layer_scale):
    with torch.device('meta'):
        model = MambaVision(arch)
    assert model.stem.conv1.conv.out_channels == stem_width
    assert {attention.num_heads for attention in of(Attention, model.stages[2])} == {heads[0]}
    assert {attention.num_heads for attention in of(Attention, model.stages[3])} == {heads[1]}
    assert (model.stages[2][0].scale1 is None) == (layer_scale is None)
    assert [stage.window_size for stage in model.stages[2:]] == [112, 56]


def test_arguments_have_their_effect():
    plain = build()
    assert not [name for name, _ in plain.named_parameters() if 'scale' in name]
    scaled = build(layer_scale=0.1)
    scales = [value for name, value in scaled.named_parameters() if 'scale' in name]
    assert len(scales) == 2 * 4 and all((value == 0.1).all() for value in scales)
    assert build(arch='b').stages[3][1].scale2[0] == 1e-5
    assert build(arch='b', layer_scale=0).stages[3][1].scale2 is None
    assert build(stem_width=24).stem.conv1.conv.out_channels == 24
    assert [stage[1].mixer.num_heads for stage in build(num_heads=(2, 4)).stages[2:]] == [2, 4]
    assert build(in_channels=4)(images(1, 32, 32, channels=4))
    rates = [block.drop_path.drop_prob for stage in build(drop_path_rate=0.3).stages for block in stage]
    assert rates == pytest.approx([0, 0.06, 0.12, 0.18, 0.24, 0.3])
    without_row = build(arch=None)
    assert without_row.stem.conv1.conv.out_channels == plain.stem.conv1.conv.out_channels
    other = build(window_sizes=(2, 4)).eval()
    assert other.state_dict().keys() == plain.state_dict().keys()
    with torch.no_grad():
        mine, theirs = plain.eval()(images(1, 96, 96)), other(images(1, 96, 96))
    assert [torch.allclose(*pair) for pair in zip(mine, theirs)] == [True, True, False, False]


@pytest.mark.parametrize('settings, message', [
    (dict(num_heads=(5, 16)), 'num_heads must divide the 32 channels, got 5'),
    (dict(num_heads=(8,)), r'num_heads must be 2 positive integers, got \(8,\)'),
    (dict(window_sizes=(8, 8, 112, 56)), 'window_sizes must be 2 positive integers'),
    (dict(window_sizes=(0, 7)), 'window_sizes must be 2 positive integers'),
    (dict(widths=(8, 16, 33, 48)), 'the widths of C4 and C5 must be even'),
])
def test_bad_arguments(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
def test_autocast_is_near_float32_and_has_finite_gradients(dtype, tolerance):
    model = build(layer_scale=0.5, window_sizes=(16, 8))
    x = images(2, 96, 128)
    expected = model(x)
    with torch.autocast('cpu', dtype):
        outs = model(x)
    for out, reference in zip(outs, expected):
        assert (out.float() - reference).norm() < tolerance * reference.norm()
    sum(out.float().square().mean() for out in outs).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_trains_compiled_without_a_graph_break():
    model = build(layer_scale=0.1)
    compiled = torch.compile(model, fullgraph=True, backend='aot_eager')
    gradients = []
    for run in (model, compiled):
        model.zero_grad()
        sum(output.square().mean() for output in run(images(2, 50, 77))).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for eager, traced in zip(*gradients):
        torch.testing.assert_close(traced, eager)


@pytest.mark.needs_torch('2.11', 'exports a scan')
def test_exports_with_any_batch_and_size_within_one_window():
    # The traced program holds for as many windows as it was traced with, or it could not tell how they are laid out.
    model = build(window_sizes=(32, 16)).eval()
    sizes = {0: Dim('batch', max=64), 2: 32 * Dim('rows', min=2, max=15), 3: 32 * Dim('columns', min=2, max=15)}
    exported = torch.export.export(model, (images(2, 64, 96),), dynamic_shapes=(sizes,))
    operators = Counter(str(node.target) for graph in exported.graph_module.modules() for node in graph.graph.nodes)
    assert any('_scan' in name for name in operators), operators
    with torch.no_grad():
        for shape in ((2, 64, 96), (1, 96, 160), (3, 64, 480)):
            for got, expected in zip(exported.module()(images(*shape)), model(images(*shape))):
                torch.testing.assert_close(got, expected)


@pytest.mark.needs_torch('2.11', 'exports a scan')
def test_exports_a_fixed_size_in_many_windows():
    model = build().eval()
    exported = torch.export.export(model, (images(1, 96, 160),))
    with torch.no_grad():
        for got, expected in zip(exported.module()(images(1, 96, 160)), model(images(1, 96, 160))):
            torch.testing.assert_close(got, expected)


@torch.no_grad()
def test_fusing_leaves_no_batch_norm():
    model = build()
    for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.2, 3)
    fused = fuse(model.eval())
    assert not any(isinstance(module, _BatchNorm) for module in fused.modules())
    for out, expected in zip(fused(images(1, 64, 64)), model(images(1, 64, 64))):
        assert (out - expected).norm() < 1e-5 * expected.norm()
