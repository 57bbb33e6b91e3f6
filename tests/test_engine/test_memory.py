"""Freed memory that is kept costs no page faults when it is used again."""
from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from mmmamba.engine import keep_freed_memory
assert keep_freed_memory()
def faults():
    torch.ones(16 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4 if torch.__version__ >= '2.11' else 12): start = faults()  # with 2.4, the heap takes seven to settle
for _ in range(4): end = faults()
print(end - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='glibc alone has these settings')
def test_blocks_are_used_again():
    kept, mapped = (
        int(subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True).stdout)
        for program in (PROGRAM, PROGRAM.replace('assert keep_freed_memory()', '')))
    assert kept < 1000 < mapped
