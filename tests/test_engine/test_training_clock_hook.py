"""What the clock of a training shows."""
from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from mmengine.logging import MessageHub

from mmmamba.engine import TrainingClockHook


def shown(hook: TrainingClockHook) -> tuple[float, float]:
    hub = MessageHub('training clock')
    hook.before_val_epoch(SimpleNamespace(message_hub=hub))
    return tuple(hub.get_scalar(f'val/{name}').current() for name in ('train_minutes', 'train_cpu_minutes'))


def epoch(hook: TrainingClockHook, seconds: float) -> None:
    hook.before_train_epoch(None)
    time.sleep(seconds)
    hook.after_train_epoch(None)


def test_it_counts_training_and_nothing_else():
    hook = TrainingClockHook()
    epoch(hook, 0.06)
    time.sleep(0.3)  # a validation
    epoch(hook, 0.06)
    wall, cpu = shown(hook)
    assert 0.12 <= 60 * wall < 0.3 and 60 * cpu < 0.1


@pytest.mark.parametrize('resumes', [True, False])
def test_a_resumed_run_goes_on_counting(resumes):
    first, second, checkpoint = TrainingClockHook(), TrainingClockHook(), {}
    epoch(first, 0.05)
    first.before_save_checkpoint(None, checkpoint)
    second.after_load_checkpoint(SimpleNamespace(_resume=resumes), checkpoint)
    epoch(second, 0.02)
    assert (60 * shown(second)[0] >= 0.07) == resumes
