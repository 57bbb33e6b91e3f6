"""The schedules against the recipe computed by other means."""
import copy

import numpy as np
import pytest
import torch
from mmdet.registry import PARAM_SCHEDULERS
from mmengine.optim import OptimWrapper
from torch import nn

import mmmamba  # noqa: F401
from mmmamba.errors import InputError

EPOCHS, LENGTH, WARMUP = 6, 7, 2


def make_wrapper(kind=torch.optim.SGD, lr=0.01, **arguments):
    model = nn.Conv2d(1, 1, 1)
    groups = [dict(params=[model.weight], group_name='weights'), dict(params=[model.bias], group_name='biases')]
    return OptimWrapper(kind(groups, lr=lr, **arguments))


def make_scheduler(wrapper, kind='WarmupLinearLR', **arguments):
    cfg = dict(type=kind, warmup_epochs=WARMUP, convert_to_iter_based=True, end=EPOCHS, **arguments)
    return PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=wrapper, epoch_length=LENGTH))


def run(wrapper, schedulers, iterations, key='lr'):
    values = []
    for _ in range(iterations):
        values.append([group[key] for group in wrapper.optimizer.param_groups])
        wrapper.step()
        for scheduler in schedulers:
            scheduler.step()
    return values


def recipe(lr=0.01, warmup=WARMUP * LENGTH, bias_start=0.1):
    """The learning rates (weights, biases) of every iteration, by numpy's interpolation."""
    values = []
    for iteration in range(EPOCHS * LENGTH):
        target = lr * np.interp(iteration // LENGTH, [0, EPOCHS], [1.0, 0.01])
        values.append([np.interp(iteration, [0, warmup], [start, target]) for start in (0.0, bias_start)])
    return values


def test_learning_rate_is_the_recipes():
    wrapper = make_wrapper()
    values = run(wrapper, [make_scheduler(wrapper)], EPOCHS * LENGTH)
    np.testing.assert_allclose(values, recipe(), rtol=1e-12)


def test_short_epochs_get_the_least_warmup():
    wrapper = make_wrapper()
    values = run(wrapper, [make_scheduler(wrapper, min_warmup_iters=30)], EPOCHS * LENGTH)
    np.testing.assert_allclose(values, recipe(warmup=30), rtol=1e-12)


def test_no_warmup_starts_at_the_base():
    wrapper = make_wrapper()
    cfg = dict(type='WarmupLinearLR', warmup_epochs=0, min_warmup_iters=30, convert_to_iter_based=True, end=EPOCHS)
    PARAM_SCHEDULERS.build(cfg, default_args=dict(optimizer=wrapper, epoch_length=LENGTH))
    assert [group['lr'] for group in wrapper.optimizer.param_groups] == [0.01, 0.01]


def test_a_scaled_learning_rate_scales_the_schedule():
    wrapper = make_wrapper()
    for group in wrapper.optimizer.param_groups:  # what Runner.scale_lr does between optimizer and scheduler
        group['lr'] *= 0.25
    values = run(wrapper, [make_scheduler(wrapper)], EPOCHS * LENGTH)
    np.testing.assert_allclose(values, recipe(lr=0.0025), rtol=1e-12)


@pytest.mark.parametrize('stop', [1, WARMUP * LENGTH - 1, 4 * LENGTH])
def test_resuming_in_the_middle_gives_the_same_values(stop):
    whole = make_wrapper(momentum=0.937)
    expected = run(whole, [make_scheduler(whole), make_scheduler(whole, 'WarmupMomentum')], EPOCHS * LENGTH)

    first = make_wrapper(momentum=0.937)
    schedulers = [make_scheduler(first), make_scheduler(first, 'WarmupMomentum')]
    run(first, schedulers, stop)
    saved = copy.deepcopy([first.state_dict(), *(scheduler.state_dict() for scheduler in schedulers)])

    second = make_wrapper(momentum=0.937)
    schedulers = [make_scheduler(second), make_scheduler(second, 'WarmupMomentum')]
    for part, state in zip([second, *schedulers], saved):
        part.load_state_dict(state)
    assert run(second, schedulers, EPOCHS * LENGTH - stop) == expected[stop:]


def test_a_resumed_run_follows_a_changed_length():
    wrapper = make_wrapper()
    scheduler = make_scheduler(wrapper)
    run(wrapper, [scheduler], 5 * LENGTH)
    longer = make_wrapper()
    resumed = PARAM_SCHEDULERS.build(
        dict(type='WarmupLinearLR', warmup_epochs=WARMUP, convert_to_iter_based=True, end=2 * EPOCHS),
        default_args=dict(optimizer=longer, epoch_length=LENGTH))
    resumed.load_state_dict(scheduler.state_dict())
    run(longer, [resumed], 1)
    assert longer.optimizer.param_groups[0]['lr'] == pytest.approx(0.01 * (1 - 0.99 * 5 / (2 * EPOCHS)))


def test_momentum_rises_to_the_optimizers_own():
    wrapper = make_wrapper(momentum=0.937)
    values = run(wrapper, [make_scheduler(wrapper, 'WarmupMomentum', start=0.8)], 20, 'momentum')
    expected = np.interp(np.arange(20), [0, WARMUP * LENGTH], [0.8, 0.937])
    np.testing.assert_allclose(values, np.stack([expected, expected], 1), rtol=1e-12)


def test_adams_first_beta_is_warmed_up():
    wrapper = make_wrapper(torch.optim.AdamW, lr=1e-3, betas=(0.9, 0.99))
    values = run(wrapper, [make_scheduler(wrapper, 'WarmupMomentum', start=0.8)], 20, 'betas')
    assert values[0][0] == (0.8, 0.99)
    assert values[-1][0] == (0.9, 0.99)


@pytest.mark.parametrize(('arguments', 'message'), [(dict(warmup_epochs=-1), 'negative'),
                                                    (dict(epoch_length=0), 'empty'),
                                                    (dict(by_epoch=True, end=3, warmup_epochs=-2), 'negative')])
def test_impossible_arguments_are_refused(arguments, message):
    cfg = dict(type='WarmupLinearLR', convert_to_iter_based=True, end=EPOCHS, epoch_length=LENGTH)
    with pytest.raises(InputError, match=message):
        PARAM_SCHEDULERS.build({**cfg, **arguments}, default_args=dict(optimizer=make_wrapper()))
