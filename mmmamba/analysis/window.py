"""A window that shows pictures, where there is a screen."""
from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np

from mmmamba.errors import InputError

_TITLE = 'mmmamba predict (q ends)'
_TRIAL = 'import cv2; cv2.namedWindow("trial"); cv2.waitKey(1)'
_END_KEYS = (ord('q'), ord('Q'), 27)  # Escape
_POLL_MILLISECONDS = 50


class Window:
    """Shows pictures one after the other.

    Attributes:
        closed: Whether q or Escape was pressed, or the window was closed.

    Raises:
        InputError: OpenCV opens no window on this machine.
    """

    def __init__(self) -> None:
        # In another process, which Qt may abort without an exception.
        if subprocess.run([sys.executable, '-c', _TRIAL], capture_output=True).returncode:
            raise InputError('--show: OpenCV opens no window here; it needs a screen, and opencv-python instead of '
                             'opencv-python-headless')
        self.closed = False
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def show(self, picture: np.ndarray, wait: bool) -> None:
        """Shows a BGR picture, and, if asked to, waits until a key is pressed."""
        cv2.imshow(_TITLE, picture)
        key = cv2.waitKey(1)
        while wait and key < 0 and self._is_open():
            key = cv2.waitKey(_POLL_MILLISECONDS)
        self.closed = key & 0xFF in _END_KEYS if key >= 0 else not self._is_open()

    @staticmethod
    def _is_open() -> bool:
        return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1
