"""What a run of a detector leaves: drawn pictures, json, YOLO's text files, crops, and the counts of its summary."""
from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import InstanceData

from mmmamba.analysis.media import write_picture
from mmmamba.errors import InputError
from mmmamba.files import finite, write_atomically


class Outputs:
    """The folders of a run, and what was found so far.

    Args:
        folder: Has ``vis`` (drawn), ``preds`` (json), ``labels`` (YOLO's text) and ``crops``, as far as they are asked
            for.
        classes: Names of all classes.
        drawn: Whether pictures and videos are drawn.
        text: Whether YOLO's text files are written.
        text_scores: Whether they have a score at the end of each line.
        crops: Whether each object is cut out.

    Raises:
        InputError: A folder cannot be made.
    """

    def __init__(self, folder: Path, classes: Sequence[str], *, drawn: bool = True, text: bool = False,
                 text_scores: bool = False, crops: bool = False) -> None:
        self.folder, self._classes, self._text_scores = folder, classes, text_scores
        self.drawn, self.text, self.crops = drawn, text, crops
        self.counts: Counter[str] = Counter()
        self.made = [name for name, wanted in (('vis', drawn), ('preds', True), ('labels', text), ('crops', crops))
                     if wanted]
        for name in self.made:
            try:
                (folder / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError(f'--out-dir: cannot make the folder {folder / name}: {error.strerror}') from error
            if not os.access(folder / name, os.W_OK | os.X_OK):
                raise InputError(f'--out-dir: no permission to write to {folder / name}')

    def add(self, stem: str, image: np.ndarray, found: InstanceData) -> None:
        """Counts the objects of a picture or frame, and writes its text file and crops under ``stem``."""
        labels = found.labels.tolist()
        if self.text:
            lines = yolo_lines(found, image.shape[:2], self._text_scores)
            write_atomically(self.folder / 'labels' / f'{stem}.txt', ''.join(f'{line}\n' for line in lines).encode())
        if self.crops:
            for number, (label, box) in enumerate(zip(labels, found.bboxes.tolist()), 1):
                left, top, right, bottom = (round(value) for value in box)
                crop = image[top:bottom, left:right]
                if crop.size:
                    folder = re.sub(r'[^\w.-]+', '_', self._classes[label]).lstrip('.') or f'class_{label}'
                    write_picture(self.folder / 'crops' / folder / f'{stem}_{number}.jpg', crop)
        self.counts.update(self._classes[label] for label in labels)

    def summary(self) -> str:
        """Says how many objects of which classes were found, the most frequent first."""
        named = ', '.join(f'{count} {name}' for name, count in self.counts.most_common())
        return f'{sum(self.counts.values())} object(s){f": {named}" if named else ""}'


def yolo_lines(found: InstanceData, size: Sequence[int], scores: bool) -> list[str]:
    """Returns detections as YOLO's data sets have them: class, centre, width and height as shares of the picture.

    Args:
        found: Detections.
        size: Height and width of the picture.
        scores: Whether each line ends with the score.
    """
    height, width = size
    lines = []
    for label, (x1, y1, x2, y2), score in zip(found.labels.tolist(), found.bboxes.tolist(), found.scores.tolist()):
        values = [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height]
        lines.append(' '.join([str(label), *(f'{value:.6f}' for value in [*values, *([score] if scores else [])])]))
    return lines


class FrameLog:
    """A json file of a video, written frame by frame; use it in a ``with`` statement.

    The file appears once it is complete. Where something is raised before that, none does.

    Args:
        path: The file to write.
        about: What it says before the frames.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self._partial, self.frames = path, path.with_name(f'.{path.name}.partial'), 0
        self._file = open(self._partial, 'w', encoding='utf-8')  # noqa: SIM115  (closed by __exit__)
        self._file.write(f'{json.dumps(about)[:-1]}, "frames": [')

    def __enter__(self) -> FrameLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with self._file:
                self._file.write('\n]}\n')
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            with suppress(OSError):
                self._partial.unlink()

    def add(self, time: float, detections: dict[str, list]) -> None:
        """Adds a frame; see :meth:`Detector.describe`."""
        frame = {'frame': self.frames, 'time': round(time, 4), **finite(detections)}
        self._file.write(f'{"," if self.frames else ""}\n{json.dumps(frame, allow_nan=False)}')
        self.frames += 1
