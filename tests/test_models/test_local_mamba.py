"""LocalVMamba's and LocalVim's own arguments, mixed precision, stochastic depth."""
from __future__ import annotations

import pytest
import torch

from mmmamba.errors import InputError
from mmmamba.models.backbones import LocalVim, LocalVMamba
from mmmamba.ops.scan.orders import PATTERNS

FOUND = [['h', 'v_flip', 'w2', 'w7'], ['w7_flip', 'w2_flip', 'v', 'h_flip'], ['w2', 'v', 'h', 'w7'], ['h']]


def vmamba(**settings) -> LocalVMamba:
    torch.manual_seed(0)
    return LocalVMamba(**{'depths': (1, 1, 1, 1), 'widths': (8, 16, 16, 24), 'directions': FOUND, **settings})


def vim(**settings) -> LocalVim:
    torch.manual_seed(0)
    return LocalVim(**{'depth': 4, 'width': 16, 'img_size': 64, 'directions': FOUND, **settings})


def directions(model) -> list[tuple[str, ...]]:
    return [module.directions for module in model.modules() if hasattr(module, 'directions')]


@pytest.mark.parametrize('make', [vmamba, vim])
def test_directions_are_given_by_block(make):
    assert directions(make()) == [tuple(names) for names in FOUND]
    assert directions(make(arch=None, directions=None)) == [PATTERNS['cross']] * 4
    with pytest.raises(InputError, match='directions must name those of each of the 4 scans, got 3'):
        make(directions=FOUND[:3])
    with pytest.raises(InputError, match="no direction named 'w3'"):
        make(directions=[['w3']] * 4)


@pytest.mark.parametrize('kind, arch, blocks, first, last', [
    (LocalVMamba, 't', 15, ('h', 'h_flip', 'w7', 'w7_flip'), ('h_flip', 'v', 'w7', 'w7_flip')),
    (LocalVMamba, 's', 33, ('h', 'v', 'v_flip', 'w7_flip'), ('h', 'v', 'w7', 'w7_flip')),
    (LocalVim, 't', 20, ('h', 'v_flip', 'w7', 'w7_flip'), ('v', 'v_flip', 'w2', 'w2_flip')),
    (LocalVim, 's', 20, ('h', 'v_flip', 'w7', 'w7_flip'), ('v', 'v_flip', 'w2', 'w2_flip')),
])
def test_published_directions(kind, arch, blocks, first, last):
    with torch.device('meta'):
        found = directions(kind(arch))
    assert len(found) == blocks and {len(names) for names in found} == {4}
    assert all(len(set(names)) == 4 for names in found)
    assert (tuple(sorted(found[0])), tuple(sorted(found[-1]))) == (first, last)


def test_arguments_have_their_effect():
    x = torch.rand(1, 3, 64, 96)
    for make, settings in ((vmamba, dict(released_columns=True)), (vim, dict(rms_norm=True))):
        plain, other = make().eval(), make(**settings).eval()
        other.load_state_dict(plain.state_dict(), strict=False)
        assert not torch.allclose(plain(x)[-1], other(x)[-1], rtol=1e-3)
        assert make(in_channels=4)(torch.rand(1, 4, 64, 64))
    rates = [stage[0].drop_path.drop_prob for stage in vmamba(drop_path_rate=0.3).stages]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    rates = [block.drop_path.drop_prob for block in vim(drop_path_rate=0.3).blocks]
    assert rates == pytest.approx([0, 0, 0.1, 0.2])  # of the state before each; the last is not dropped
    with pytest.raises(InputError, match='width that is a multiple of 4, got 18'):
        vim(width=18)


@torch.no_grad()
def test_local_vim_gives_out_norms_of_hidden_states():
    model, hidden = vim(out_indices=(1, 3)).eval(), []
    for index in (1, 3):
        model.blocks[index].register_forward_hook(lambda _, inputs, outputs: hidden.append(outputs[0]))
    for out, norm, state in zip(model(torch.rand(1, 3, 48, 80)), model.out_norms, hidden):
        torch.testing.assert_close(out, norm(state).permute(0, 3, 1, 2))


@pytest.mark.parametrize('dtype, tolerance', [(torch.bfloat16, 0.05), (torch.float16, 0.01)])
@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('make', [vmamba, vim])
def test_autocast_is_near_float32_and_has_finite_gradients(make, dtype, tolerance, with_cp):
    model, x = make(with_cp=with_cp), torch.rand(2, 3, 64, 96)
    expected = model(x)[-1]
    with torch.autocast('cpu', dtype):
        outs = model(x)
    assert (outs[-1] - expected).norm() < tolerance * expected.norm()
    sum(out.square().mean() for out in outs).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in model.parameters())
