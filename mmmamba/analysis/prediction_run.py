"""A detector over pictures, videos, cameras and streams: what cannot be used is named while the others are done."""
from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from mmdet.structures import DetDataSample
from tqdm import tqdm

from mmmamba.analysis.inference import Detector
from mmmamba.analysis.media import Frame, LiveVideo, Video, stopped_by_signal, write_picture
from mmmamba.analysis.prediction_outputs import FrameLog, Outputs
from mmmamba.analysis.slicing import SlicedDetector
from mmmamba.analysis.sources import LiveSource, Source, Sources
from mmmamba.analysis.tracking import Tracker
from mmmamba.analysis.video_file import VideoFile
from mmmamba.analysis.window import Window
from mmmamba.datasets.transforms.load_checked_image import LoadCheckedImage, UnreadableImageError
from mmmamba.errors import InputError
from mmmamba.files import write_json

T = TypeVar('T')


@dataclass
class Tally:
    """How many pictures, or frames, are done, and how many could not be."""
    done: int = 0
    failed: int = 0


@dataclass
class Run:
    """A detector, and what happens with what it finds.

    Attributes:
        detector: The detector.
        outputs: What is written.
        score_thr: Least score of a detection.
        labels: Classes to keep; None for all.
        batch_size: Images at a time.
        slice_size: Side of the parts in which each picture is searched, in pixels; None for the picture as it is.
        track: Whether the objects of a video are numbered.
        window: Shows what is drawn, if there is one; pictures until a key is pressed.
        pictures: How many pictures are done.
        frames: How many frames of videos, cameras and streams are done.
    """

    detector: Detector
    outputs: Outputs
    score_thr: float = 0.3
    labels: Collection[int] | None = None
    batch_size: int = 1
    slice_size: int | None = None
    track: bool = False
    window: Window | None = None
    pictures: Tally = field(default_factory=Tally)
    frames: Tally = field(default_factory=Tally)

    def __post_init__(self) -> None:
        self._looking = SlicedDetector(self.detector, self.slice_size) if self.slice_size else self.detector

    @property
    def ended(self) -> bool:
        """Returns whether somebody has closed the window."""
        return self.window is not None and self.window.closed

    def do(self, sources: Sources) -> None:
        """Does pictures, then videos, then a camera or stream until it ends, or until Ctrl-C."""
        if sources.images:
            self._do_images(sources.images)
        for source in sources.videos:
            if not self.ended:
                self._do_video(source)
        for live in sources.live:
            if not self.ended:
                with stopped_by_signal() as stopped, LiveVideo(live.place, live.given) as video:
                    self._do_frames(live, video, video.frames(stopped), 0)

    def _do_images(self, sources: Sequence[Source]) -> None:
        load = LoadCheckedImage()
        with tqdm(total=len(sources), unit='image') as bar:
            for batch in _batched(sources, self.batch_size):
                images, prepared = [], []
                for source in batch:
                    try:
                        image = load({'img_path': str(source.path)})['img']
                        prepared.append(self._looking.prepare(image, source.path))
                        images.append((source, image))
                    except UnreadableImageError as error:
                        self.pictures.failed += 1
                        warn(f'{str(error).replace(str(source.path), source.given)}; left out')
                for (source, image), sample in zip(images, self._looking.detect(prepared)):
                    try:
                        self._finish_image(source, image, sample)
                        self.pictures.done += 1
                    except (InputError, OSError) as error:
                        self.pictures.failed += 1
                        warn(f'{source.given}: its results cannot be written: {error}')
                    if self.ended:
                        return
                bar.update(len(batch))

    def _do_video(self, source: Source) -> None:
        video = Video(source.path)
        done = self._do_frames(source, video, video, video.frame_count)
        if done < video.frame_count and not self.ended:
            self.frames.failed += video.frame_count - done
            warn(f'{source.given}: only {done} of the {video.frame_count} frames that it announces can be read')

    def _finish_image(self, source: Source, image: np.ndarray, sample: DetDataSample) -> None:
        found = self.detector.choose(sample, self.score_thr, self.labels)
        folder = self.outputs.folder
        write_json(folder / 'preds' / f'{source.name}.json', {'file': source.given, **self.detector.describe(found)})
        drawn = self.detector.draw(image, found) if self.outputs.drawn or self.window else None
        if self.outputs.drawn:
            _check_not_source(folder / 'vis' / source.name, source)
            write_picture(folder / 'vis' / source.name, drawn)
        self.outputs.add(source.stem, image, found)
        if self.window:
            self.window.show(drawn, wait=True)

    def _do_frames(self, source: Source | LiveSource, video: Video | LiveVideo, frames: Iterable[Frame],
                   expected: int) -> int:
        tracker = Tracker(self.score_thr, video.fps) if self.track else None
        drawn = self.outputs.folder / 'vis' / f'{source.stem}.mp4'
        _check_not_source(drawn, source)
        # A camera's next frame would have to wait until the batch is full.
        batch_size = 1 if isinstance(video, LiveVideo) else self.batch_size
        with ExitStack() as stack:
            log = stack.enter_context(FrameLog(self.outputs.folder / 'preds' / f'{source.name}.json',
                                               {'file': source.given, 'fps': video.fps}))
            out = stack.enter_context(VideoFile(drawn, like=video)) if self.outputs.drawn else None
            bar = stack.enter_context(tqdm(total=expected or None, unit='frame'))
            for batch in _batched(frames, batch_size):
                prepared = [self._looking.prepare(frame.image, Path(source.given)) for frame in batch]
                for frame, sample in zip(batch, self._looking.detect(prepared)):
                    if tracker:
                        tracker.update(sample.pred_instances)
                    found = self.detector.choose(sample, self.score_thr, self.labels)
                    self.outputs.add(f'{source.stem}_{log.frames:06d}', frame.image, found)
                    log.add(frame.time, self.detector.describe(found))
                    self.frames.done += 1
                    picture = self.detector.draw(frame.image, found) if out or self.window else None
                    if out:
                        out.write(picture, frame.time)
                    if self.window:
                        self.window.show(picture, wait=False)
                        if self.ended:
                            return log.frames
                bar.update(len(batch))
            return log.frames


def warn(message: object) -> None:
    """Prints a warning of one line above the progress bar."""
    tqdm.write(f'warning: {" ".join(str(message).split())}', file=sys.stderr)


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _check_not_source(out: Path, source: Source | LiveSource) -> None:
    if isinstance(source, Source) and out.exists() and out.samefile(source.path):
        raise InputError(f'{out} is the input itself; choose another --out-dir')
