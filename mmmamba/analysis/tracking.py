"""One number for an object through a video: ByteTrack, of the optional package trackers."""
from __future__ import annotations

from importlib import import_module

import numpy as np
import torch
from mmengine.structures import InstanceData

_LEAST_SCORE = 0.1  # of a box that may continue a track, as in ByteTrack's paper


class Tracker:
    """Numbers the objects of a video.

    Args:
        score_thr: Least score of a detection that can begin a track; those below can only continue one.
        fps: Frames a second; a track that is lost for a second ends.

    Raises:
        ImportError: ``trackers`` is not installed.
    """

    def __init__(self, score_thr: float, fps: float) -> None:
        tracker = import_module('trackers').ByteTrackTracker
        self._detections = import_module('supervision').Detections
        self._tracker = tracker(frame_rate=fps, track_activation_threshold=score_thr,
                                high_conf_det_threshold=score_thr)
        self._least = min(_LEAST_SCORE, score_thr)

    def update(self, found: InstanceData) -> None:
        """Gives each detection of the next frame its ``track_ids``, int64 (N,): from 0, or -1 without a track.

        A track has a number once its object was found in two frames in a row.
        """
        ids = torch.full((len(found),), -1)
        chosen = (found.scores > self._least).nonzero()[:, 0].numpy()
        tracked = self._tracker.update(self._detections(
            xyxy=found.bboxes.numpy()[chosen].reshape(-1, 4), confidence=found.scores.numpy()[chosen],
            class_id=found.labels.numpy()[chosen], data={'place': chosen}))
        if len(tracked):
            ids[torch.from_numpy(np.asarray(tracked.data['place']))] = torch.from_numpy(tracked.tracker_id).long()
        found.track_ids = ids
