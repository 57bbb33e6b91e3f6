"""Mixed precision on the CPU."""
import pytest
import torch
from torch import nn

import mmmamba  # noqa: F401
from mmmamba.engine import AutocastOptimWrapper
from mmmamba.errors import InputError

DTYPES = {'bfloat16': torch.bfloat16, 'float16': torch.float16}


def make(dtype, **arguments):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(16, 1))
    return model, AutocastOptimWrapper(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), dtype, **arguments)


def step(model, wrapper, scale=1.0):
    with wrapper.optim_context(model):
        output = model(torch.ones(3, 2, 4, 4))
    wrapper.update_params(output.float().square().mean() * scale)
    return output


@pytest.mark.parametrize('dtype', DTYPES)
def test_computes_in_low_precision_and_learns(dtype):
    model, wrapper = make(dtype, clip_grad=dict(max_norm=1.0))
    outputs = [step(model, wrapper) for _ in range(5)]
    assert outputs[0].dtype == DTYPES[dtype]
    assert outputs[-1].abs().mean() < outputs[0].abs().mean()
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_float16_skips_a_step_whose_gradients_overflow():
    model, wrapper = make('float16')
    before = [parameter.clone() for parameter in model.parameters()]
    scale = wrapper.loss_scaler.get_scale()
    step(model, wrapper, scale=1e38)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters()))
    assert wrapper.loss_scaler.get_scale() == scale / 2
    step(model, wrapper)
    assert not torch.equal(before[0], next(model.parameters()))


def test_bfloat16_needs_no_scale():
    assert not make('bfloat16')[1].loss_scaler.is_enabled()


@pytest.mark.parametrize('dtype', DTYPES)
def test_state_round_trips(dtype):
    model, wrapper = make(dtype)
    for scale in (1e38, 1.0):
        step(model, wrapper, scale)
    _, other = make(dtype)
    other.load_state_dict(wrapper.state_dict())
    assert other.loss_scaler.state_dict() == wrapper.loss_scaler.state_dict()
    momenta = [state['momentum_buffer'] for state in wrapper.optimizer.state.values()]
    assert all(torch.equal(old, state['momentum_buffer'])
               for old, state in zip(momenta, other.optimizer.state.values()))


def test_accumulated_gradients_equal_those_of_one_batch():
    model, whole = make('bfloat16')
    step(model, whole)
    expected = [parameter.clone() for parameter in model.parameters()]
    model, parts = make('bfloat16', accumulative_counts=2)
    for _ in range(2):
        step(model, parts)
    for old, new in zip(expected, model.parameters()):
        torch.testing.assert_close(new, old, rtol=1e-2, atol=1e-4)


def test_other_types_are_refused():
    with pytest.raises(InputError, match='float64'):
        make('float64')
