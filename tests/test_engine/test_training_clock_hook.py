"""What the clock of a training shows."""
from __future__ import annotations

from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmmamba.engine import TrainingClockHook
from mmmamba.engine.hooks import validation_hooks


@pytest.fixture
def clock(monkeypatch) -> SimpleNamespace:
    """Seconds of wall clock and of the CPU, which the tests set."""
    now = SimpleNamespace(wall=1000.0, cpu=50.0)
    monkeypatch.setattr(validation_hooks, '_now', lambda: (now.wall, now.cpu))
    return now


def shown(hook: TrainingClockHook) -> tuple[float, float]:
    hub = MessageHub('training clock')
    hook.before_val_epoch(SimpleNamespace(message_hub=hub))
    return tuple(hub.get_scalar(f'val/{name}').current() for name in ('train_minutes', 'train_cpu_minutes'))


def epoch(hook: TrainingClockHook, clock: SimpleNamespace, wall: float, cpu: float) -> None:
    hook.before_train_epoch(None)
    clock.wall += wall
    clock.cpu += cpu
    hook.after_train_epoch(None)


def test_it_counts_training_and_nothing_else(clock):
    hook = TrainingClockHook()
    epoch(hook, clock, 60.0, 90.0)
    clock.wall += 500.0  # a validation
    epoch(hook, clock, 30.0, 60.0)
    assert shown(hook) == (1.5, 2.5)


@pytest.mark.parametrize('resumes, minutes', [(True, 1.5), (False, 0.5)])
def test_a_resumed_run_goes_on_counting(clock, resumes, minutes):
    first, second, checkpoint = TrainingClockHook(), TrainingClockHook(), {}
    epoch(first, clock, 60.0, 60.0)
    first.before_save_checkpoint(None, checkpoint)
    second.after_load_checkpoint(SimpleNamespace(_resume=resumes), checkpoint)
    epoch(second, clock, 30.0, 30.0)
    assert shown(second) == (minutes, minutes)


def test_the_part_of_an_epoch_before_a_stop_counts(clock):
    first, second, checkpoint = TrainingClockHook(), TrainingClockHook(), {}
    first.before_train_epoch(None)
    clock.wall, clock.cpu = clock.wall + 30.0, clock.cpu + 15.0
    first.before_save_checkpoint(None, checkpoint)
    second.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)
    epoch(second, clock, 30.0, 45.0)
    assert shown(second) == (1.0, 1.0)
