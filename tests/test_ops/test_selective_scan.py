from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_cases import WAYS, assert_close, cast, results, selective_inputs, selective_way
from torch import Tensor

from mmmamba.ops import selective_scan
from mmmamba.ops.dispatch import TOLERANCES

REDUCED_TOO = (torch.float32, torch.float16, torch.bfloat16)
FIXTURE = Path(__file__).parents[1] / 'data' / 'selective_scan.npz'
# batch, channels, length, states, groups
SHAPES = [
    (1, 1, 1, 1, 1),
    (2, 5, 7, 4, 1),
    (1, 16, 64, 16, 1),
    (1, 17, 65, 8, 1),
    (2, 24, 129, 2, 4),
    (1, 6, 33, 32, 2),
    (1, 21, 5, 3, 7),
    (0, 4, 3, 2, 1),
    (1, 4, 0, 2, 2),
]


def results_of(
    way: str, inputs: dict[str, Tensor], softplus: bool = True, autocast: bool = False
) -> dict[str, Tensor]:
    scan = selective_way(way)
    return results(lambda **named: scan(**named, delta_softplus=softplus), inputs, autocast)


@pytest.mark.parametrize('case', ['small', 'grouped', 'state1'])
@pytest.mark.parametrize('way', ['reference', *WAYS])
def test_public_implementation(way, case):
    stored = {
        key.split('.')[1]: torch.from_numpy(value) for key, value in np.load(FIXTURE).items() if key.startswith(case)
    }
    names = ('u', 'delta', 'A', 'B', 'C', 'D', 'delta_bias')
    inputs = cast({name: stored[name] for name in names}, torch.float32)
    y, last_state = selective_way(way)(**inputs, delta_softplus=True)
    gradients = torch.autograd.grad(y, list(inputs.values()), stored['grad_y'])
    got = {'y': y, 'last_state': last_state, **{f'grad_{name}': g for name, g in zip(names, gradients)}}
    assert_close(got, {name: stored[name] for name in got}, TOLERANCES[torch.float32])


@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('way', WAYS)
def test_matches_float64_reference(way, shape):
    inputs = selective_inputs(*shape)
    got = results_of(way, cast(inputs, torch.float32))
    assert_close(got, results_of('reference', cast(inputs, torch.float64)), TOLERANCES[torch.float32])


@pytest.mark.parametrize('left_out', [['D'], ['delta_bias'], ['D', 'delta_bias']], ids=str)
@pytest.mark.parametrize('softplus', [False, True])
@pytest.mark.parametrize('way', WAYS)
def test_optional_arguments(way, softplus, left_out):
    inputs = selective_inputs(2, 7, 19, 4, 1)
    inputs = {name: tensor.abs() if name == 'delta' else tensor for name, tensor in inputs.items()}
    inputs = {name: tensor for name, tensor in inputs.items() if name not in left_out}
    got = results_of(way, cast(inputs, torch.float32), softplus)
    assert_close(got, results_of('reference', cast(inputs, torch.float64), softplus), TOLERANCES[torch.float32])


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 3),
    group_size=st.integers(1, 20),
    length=st.integers(1, 150),
    states=st.sampled_from([1, 2, 4, 5, 8, 16, 32]),
    dtype=st.sampled_from(list(REDUCED_TOO)),
    left_out=st.sets(st.sampled_from(['D', 'delta_bias', 'z'])),
    softplus=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_default_backend_matches_on_random_inputs(
    batch, groups, group_size, length, states, dtype, left_out, softplus, seed
):
    inputs = selective_inputs(batch, groups * group_size, length, states, groups, seed)
    inputs['z'] = inputs['u'].flip(-1)
    if not softplus:  # steps back would make states grow
        inputs.update({name: inputs[name].abs() for name in ('delta', 'delta_bias')})
    inputs = cast({name: tensor for name, tensor in inputs.items() if name not in left_out}, dtype)

    def scan(**named):
        return selective_scan(**named, delta_softplus=softplus, return_last_state=True)

    # A gradient of D is a sum of up to 450 terms of size 1, and may cancel.
    assert_close(results(scan, inputs), results(scan, cast(inputs, torch.float64)), TOLERANCES[dtype], floor=1)


@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_gate_and_forms_of_B_and_C(backend, requires):
    """A gate multiplies by silu(z); three-dimensional B has one group; a (channels, N) matrix is constant in time."""
    requires(backend)
    inputs = selective_inputs(2, 6, 11, 4, 2)
    z = torch.linspace(-3, 3, 132, dtype=torch.float64).view(2, 6, 11)
    one_group, constant = inputs['B'][:, 0], inputs['A'] + 1
    variants = [
        ({'B': one_group, 'C': inputs['C'][:, 1]}, {'B': one_group[:, None], 'C': inputs['C'][:, 1:]}),
        ({'B': one_group}, {'B': one_group[:, None].expand(-1, 2, -1, -1)}),
        ({'C': constant}, {
            'B': inputs['B'].repeat_interleave(3, dim=1),
            'C': constant[None, :, :, None].expand(2, 6, 4, 11),
        }),
    ]
    for given_as, meaning in variants:
        got = results(
            lambda **named: selective_scan(**named, z=z.float(), delta_softplus=True, backend=backend),
            cast({**inputs, **given_as}, torch.float32),
        )
        plain = selective_scan(**{**inputs, **meaning}, delta_softplus=True, backend='reference')
        assert_close({'y': got['y']}, {'y': plain * F.silu(z)}, TOLERANCES[torch.float32])
        expected = results(
            lambda **named: selective_scan(**named, z=z, delta_softplus=True, backend='reference'),
            cast({**inputs, **given_as}, torch.float64),
        )
        assert_close(got, expected, TOLERANCES[torch.float32])


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_reduced_precision_inputs(backend, dtype, requires):
    requires(backend)
    inputs = cast(selective_inputs(2, 20, 40, 4, 2), dtype)
    got = results_of(backend, inputs)
    assert got['y'].dtype == dtype and got['last_state'].dtype == torch.float32
    assert all(got[f'grad_{name}'].dtype == dtype for name in inputs)
    expected = results_of('reference', cast(inputs, torch.float64))
    assert_close(got, expected, TOLERANCES[dtype])


@pytest.mark.parametrize('backend', ['cpu', 'torch', 'reference'])
def test_autocast_changes_nothing(backend, requires):
    requires(backend)
    inputs = cast(selective_inputs(1, 20, 40, 4, 2), torch.float32)
    plain = results_of(backend, inputs)
    under = results_of(backend, inputs, autocast=True)
    for name, value in plain.items():
        assert torch.equal(under[name], value), name


@pytest.mark.parametrize('backend', ['torch', 'reference'])
def test_gradcheck(backend):
    inputs = cast(selective_inputs(2, 4, 7, 2, 2), torch.float64)
    names = list(inputs)

    def scan(*values):
        return selective_scan(
            **dict(zip(names, values)), delta_softplus=True, return_last_state=True, backend=backend
        )

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


def test_reference_is_twice_differentiable():
    inputs = cast(selective_inputs(1, 2, 4, 2, 1), torch.float64)
    names = list(inputs)
    assert torch.autograd.gradgradcheck(
        lambda *values: selective_scan(**dict(zip(names, values)), delta_softplus=True, backend='reference'),
        tuple(inputs.values()),
    )


@pytest.mark.parametrize('backend', ['cpu', 'torch'])
def test_second_derivative_is_refused(backend, requires):
    requires(backend)
    inputs = cast(selective_inputs(1, 2, 4, 2, 1), torch.float32)
    with pytest.raises(RuntimeError, match='no second derivative .* use backend="reference"'):
        torch.autograd.grad(selective_scan(**inputs, backend=backend).sum(), inputs['u'], create_graph=True)


@pytest.mark.parametrize('way', WAYS)
def test_growing_states_and_slow_decays(way):
    """A positive A grows; decays next to one must gather no bias over a long sequence."""
    length = 4000
    inputs = selective_inputs(1, 3, length, 2, 1)
    inputs['delta'] = 2e-3 * torch.rand(1, 3, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs['A'] = torch.tensor([[-1e-4, 1.0], [-0.1, 0.5], [-1e-6, 1e-3]], dtype=torch.float64)
    del inputs['delta_bias']
    got = selective_way(way)(**{name: tensor.float() for name, tensor in inputs.items()})[0]
    expected = selective_way('torch')(**inputs)[0]
    assert_close({'y': got}, {'y': expected}, TOLERANCES[torch.float32])


@pytest.mark.parametrize(
    'change, message',
    [
        ({'u': torch.zeros(2, 4)}, r'u must be \(batch, channels, length\), not \(2, 4\)'),
        ({'delta': torch.zeros(1, 4, 5)}, 'delta must be'),
        ({'A': torch.zeros(3, 2)}, r'A must be \(4, N\), not \(3, 2\)'),
        ({'A': torch.zeros(4, 0)}, 'at least one state'),
        ({'A': torch.zeros(4, 2, dtype=torch.complex64)}, 'A is complex; only real'),
        ({'B': torch.zeros(1, 3, 2, 6)}, '4 channels cannot be split into the 3 groups of B'),
        ({'B': torch.zeros(1, 1, 5, 6)}, 'B must be'),
        ({'C': torch.zeros(4, 3)}, r'C must be \(4, 2\)'),
        ({'D': torch.zeros(5)}, r'D must be \(4,\), not \(5,\)'),
        ({'z': torch.zeros(1, 4, 5)}, 'z must be'),
        ({'delta_bias': torch.zeros(4, dtype=torch.int64)}, 'delta_bias must be floating point, not torch.int64'),
    ],
)
def test_bad_input_names_the_argument(change, message):
    inputs = {name: tensor.float() for name, tensor in selective_inputs(1, 4, 6, 2, 1).items()}
    with pytest.raises(ValueError, match=f'selective_scan: .*{message}'):
        selective_scan(**{**inputs, **change})


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('backend', ['cpu', 'triton', 'torch', 'reference'])
def test_a_gated_output_is_rounded_once(backend, dtype, requires, small_tiling):
    """Half a unit in the last place, also where y itself does not fit the dtype (float16 ends at 65504)."""
    requires(backend)
    make = torch.Generator().manual_seed(0)
    sizes = ((4, 1e3), (4, 60), (2, 1), (2, 1))
    u, delta, B, C = ((size * (torch.rand(1, rows, 8, generator=make) + 0.5)).to(dtype) for rows, size in sizes)
    A, z = torch.full((4, 2), -1e-4), torch.linspace(-12, -8, 32).view(1, 4, 8).to(dtype)
    plain = selective_scan(*(t.double() for t in (u, delta, A, B, C)), backend='reference')
    assert plain.max() > 65504
    exact = plain * F.silu(z.double())
    got = selective_scan(u, delta, A, B, C, None, z, backend=backend)
    assert got.dtype == dtype
    assert ((got.double() - exact).abs() <= 0.51 * torch.finfo(dtype).eps * exact.abs()).all()


@pytest.mark.parametrize('alone', ['u', 'z', 'delta'])
def test_one_input_in_float64_makes_all_of_it_float64(alone):
    inputs = {**cast(selective_inputs(1, 2, 9, 2, 1), torch.float32), 'z': torch.linspace(-2, 2, 18).view(1, 2, 9)}
    inputs[alone] = inputs[alone].detach().double()
    y, last_state = selective_scan(**inputs, return_last_state=True)
    expected = selective_scan(**{name: tensor.double() for name, tensor in inputs.items()}, return_last_state=True)
    assert last_state.dtype == torch.float64 and y.dtype == inputs['u'].dtype
    torch.testing.assert_close(last_state, expected[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(y, expected[0].to(y.dtype))
