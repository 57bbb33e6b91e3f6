from __future__ import annotations

import os
import select
import sys
import time

import pytest

from mmmamba.analysis.measurement import end_with_parent


@pytest.mark.skipif(sys.platform != 'linux', reason="what it asks for is Linux's")
@pytest.mark.filterwarnings('ignore:.*fork.*:DeprecationWarning')
@pytest.mark.parametrize('bound', [True, False])
def test_a_process_ends_with_the_one_that_started_it(bound):
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        if not os.fork():  # the one in question: holds the pipe open as long as it lives
            if bound:
                end_with_parent()
            os.write(writing, b'.')
            time.sleep(3)
            os._exit(0)
        time.sleep(60)
    os.close(writing)
    assert os.read(reading, 1) == b'.'
    os.kill(parent, 15)
    os.waitpid(parent, 0)
    ended, _, _ = select.select([reading], [], [], 1.5)
    os.close(reading)
    assert bool(ended) == bound
