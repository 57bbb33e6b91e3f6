"""What a comparison knows once its runs have ended, gathered by config and evaluated.

Its report is made of this and of the files named here, so that it can be written again without any training.
"""
from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from mmmamba.analysis.compare.evaluation import evaluate_boxes, mean_precision, read_detections
from mmmamba.analysis.compare.tide import DetectionErrors, find_errors

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
        metrics: CocoMetric's, under its own keys; -1 if there are no such objects. A finished run has at least
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
        """Returns whether it was trained and tested to the end."""
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


@dataclass(frozen=True)
class AnalysedRun:
    """A run, and what its detections tell where it finished and they were kept.

    Args:
        result: The run.
        errors: Its errors by kind.
        precision: At recalls 0, 0.01, …, 1, (2, 101): at IoU 0.5 and 0.75, mean over classes.
    """
    result: RunResult
    errors: DetectionErrors | None = None
    precision: np.ndarray | None = None


@dataclass(frozen=True)
class ConfigSummary:
    """The runs of one config, one a seed.

    Args:
        name: Of the config.
        label: What is left of it without what all names have in common.
        runs: In the order given.
    """
    name: str
    label: str
    runs: tuple[AnalysedRun, ...]

    @property
    def finished(self) -> tuple[RunResult, ...]:
        """Returns the runs that were tested."""
        return tuple(run.result for run in self.runs if run.result.finished)

    @property
    def analysed(self) -> tuple[AnalysedRun, ...]:
        """Returns the runs whose detections were kept."""
        return tuple(run for run in self.runs if run.errors)

    def values(self, metric: str) -> list[float]:
        """Returns a metric of each finished run that has it."""
        return [run.metrics[metric] for run in self.finished if run.metrics.get(metric, -1) >= 0]

    def history(self, value: Callable[[Validation], float]) -> np.ndarray:
        """Gathers the validations of the finished runs.

        Args:
            value: What of a validation.

        Returns:
            (seeds, epochs), of the epochs after which every one of them was validated.
        """
        histories = [{item.epoch: item for item in run.history} for run in self.finished]
        epochs = sorted(set.intersection(*map(set, histories))) if histories else []
        return np.array([[value(history[epoch]) for epoch in epochs] for history in histories])


def summarise(runs: Sequence[RunResult], truth: dict) -> tuple[ConfigSummary, ...]:
    """Gathers runs by config, in the order in which the configs come first.

    Args:
        runs: All runs.
        truth: What ``read_truth`` returned.

    Raises:
        InputError: If a file of detections is missing or malformed.
    """
    # Without a single detection CocoMetric has no metrics, and all AP is zero.
    asked = {metric: 0.0 for run in runs for metric, value in run.metrics.items() if value >= 0}
    runs = [replace(run, metrics={**asked, **run.metrics}) if run.finished else run for run in runs]
    names = list(dict.fromkeys(run.name for run in runs))
    return tuple(ConfigSummary(name, label, tuple(_analyse(run, truth) for run in runs if run.name == name))
                 for name, label in zip(names, short_labels(names)))


def _analyse(run: RunResult, truth: dict) -> AnalysedRun:
    if not run.finished or run.detections is None:
        return AnalysedRun(run)
    evaluation = evaluate_boxes(truth, read_detections(run.detections, truth))
    return AnalysedRun(run, find_errors(evaluation), mean_precision(evaluation))


def mean_and_spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Writes mean ± sample standard deviation, the latter from two values on; a dash if there is none."""
    if not values:
        return '–'
    mean = f'{scale * statistics.mean(values):.{digits}f}'
    return mean if len(values) == 1 else f'{mean} ± {scale * statistics.stdev(values):.{digits}f}'


def short_labels(names: Sequence[str]) -> list[str]:
    """Leaves out the words that all names end with, then those that all begin with; of each, one word stays at least.

    Args:
        names: Of configs, words joined by ``_``.
    """
    words = [name.split('_') for name in names]
    for end in (-1, 0):
        while len(words) > 1 and all(len(item) > 1 for item in words) and len({item[end] for item in words}) == 1:
            for item in words:
                del item[end]
    return ['_'.join(item) for item in words]
