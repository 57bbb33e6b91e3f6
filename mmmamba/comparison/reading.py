"""What runs left behind in their folders, as the report wants it."""
from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mmmamba.comparison.result import AP, RunResult, Validation
from mmmamba.comparison.run import RESULTS, Run


def read_run(run: Run, parameters: int | None) -> RunResult:
    """The result of a run; one without a result says why it has none.

    Args:
        run: Executed, or not.
        parameters: Number of the model's, if it is wanted.
    """
    failure, metrics = None, {}
    if run.finished:
        # Without a single detection CocoMetric has no metrics; null is one that is not defined.
        found = json.loads(run.metrics.read_text(encoding='utf-8'))
        metrics = {AP: 0.0, f'{AP}_50': 0.0, f'{AP}_75': 0.0,
                   **{name: value for name, value in found.items() if value is not None}}
    else:
        failure = f'failed: {run.failure}' if run.failure else 'not run to its end yet'
    return RunResult(run.name, run.seed, failure, parameters, metrics, read_history(run.folder / 'train'),
                     run.folder / f'{RESULTS}.bbox.json' if failure is None else None)


def read_history(train: Path) -> tuple[Validation, ...]:
    """Validations of a training, whose log has as many parts as it was resumed times; the later part counts.

    Args:
        train: The work dir of a training with ``TrainingClockHook`` and CocoMetric.
    """
    by_epoch = {}
    for record in read_records(train):
        if 'train_minutes' in record:
            by_epoch[record['step']] = Validation(
                record['step'], record['train_minutes'], record['train_cpu_minutes'], record.get(AP, 0.0))
    return tuple(by_epoch[epoch] for epoch in sorted(by_epoch))


def read_records(train: Path) -> Iterator[dict]:
    """What a training logged, in the order of its parts.

    Args:
        train: Its work dir.
    """
    for log in sorted(train.glob('*/vis_data/scalars.json')):
        for line in log.read_text(encoding='utf-8').splitlines():
            with suppress(ValueError):  # at the line that was being written when the training was killed
                yield json.loads(line)
