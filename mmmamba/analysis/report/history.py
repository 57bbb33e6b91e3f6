"""The loss and the AP of a training, read from the numbers that mmengine logged next to the checkpoint."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmmamba.analysis.compare.runs import read_log

_AP = 'coco/bbox_mAP'


@dataclass(frozen=True)
class History:
    """A training.

    Args:
        epochs: Where each loss was logged, with fractions.
        losses: The sum of all terms.
        validated: After which epochs AP was measured.
        ap: Mean over IoU 0.50:0.95, in [0, 1].
        ap50: At IoU 0.5, in [0, 1].
    """
    epochs: Sequence[float]
    losses: Sequence[float]
    validated: Sequence[int]
    ap: Sequence[float]
    ap50: Sequence[float]


def read_history(folder: Path) -> History | None:
    """Reads all logs of a work dir: a training that was resumed has several, and a later one wins.

    Args:
        folder: Of the checkpoint.

    Returns:
        What was logged; None if there is no log of a training by epochs.
    """
    records: list[dict] = []
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        run = list(read_log(path))
        losses = [record for record in run if _trained(record)]
        if losses:  # else a test has written it
            first = losses[0]
            records = [record for record in records if _before(record, first)] + run
    losses = [record for record in records if _trained(record) and record['loss'] is not None]
    if not losses:
        return None
    per_epoch = max(record['iter'] / record['epoch'] for record in losses)
    validations = {record['step']: record for record in records if 'loss' not in record and _AP in record}
    return History([record['iter'] / per_epoch for record in losses], [record['loss'] for record in losses],
                   list(validations), [record[_AP] for record in validations.values()],
                   [record.get(f'{_AP}_50', float('nan')) for record in validations.values()])


def _trained(record: dict) -> bool:
    return {'loss', 'iter', 'epoch'} <= record.keys()


def _before(record: dict, first: dict) -> bool:
    """Tells whether a record is older than the first one of a training that was resumed."""
    return record['iter'] < first['iter'] if _trained(record) else record.get('step', 0) < first['epoch']
