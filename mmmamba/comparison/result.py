"""What a comparison knows once its runs have ended; its report is made of this and of the files named here."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

AP = 'coco/bbox_mAP'


@dataclass(frozen=True)
class Validation:
    """What a run had reached when it was validated.

    Args:
        epoch: Epochs trained so far.
        minutes: Wall clock of training so far, validation excluded.
        cpu_minutes: CPU time of the training process so far.
        ap: Mean over IoU 0.50:0.95, in [0, 1].
    """
    epoch: int
    minutes: float
    cpu_minutes: float
    ap: float


@dataclass(frozen=True)
class RunResult:
    """One config, trained and tested with one seed.

    Args:
        name: Of the config; runs of one name are averaged.
        seed: Of the run.
        failure: Why it has no result, in one line ('failed: …'); None where it finished.
        parameters: Number of the model's.
        metrics: CocoMetric's, under its own keys; -1 where there are no such objects. A finished run has at least
            ``coco/bbox_mAP``.
        history: Its validations, in the order of the epochs.
        detections: Its COCO results file (CocoMetric's ``*.bbox.json``).
    """
    name: str
    seed: int
    failure: str | None = None
    parameters: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: tuple[Validation, ...] = ()
    detections: Path | None = None

    def __post_init__(self) -> None:
        if self.finished and AP not in self.metrics:
            raise ValueError(f'{self.name}, seed {self.seed}: a run that finished needs the metric {AP}')

    @property
    def finished(self) -> bool:
        """Whether it was trained and tested to the end."""
        return self.failure is None


@dataclass(frozen=True)
class Comparison:
    """Runs that differ in nothing but config and seed.

    Args:
        title: Of the report.
        command: The one command that makes it again.
        conditions: What all runs share, to be listed: data set, images, epochs, batch, optimiser, device, versions.
        annotations: COCO json of the test set.
        images: The folder of its images.
        runs: In the order of the report.
        classes: Names of the categories that the detectors were trained for; None for all of the test set's.
    """
    title: str
    command: str
    conditions: Mapping[str, str]
    annotations: Path
    images: Path
    runs: tuple[RunResult, ...]
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        keys = [(run.name, run.seed) for run in self.runs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise ValueError(f'{twice[0][0]}: two runs of seed {twice[0][1]}')
