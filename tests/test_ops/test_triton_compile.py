"""What the compiled kernels need of a chip, without one: no spills, and shared memory that it has."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from mmmamba.ops.scan.orders import PATTERNS
from mmmamba.ops.triton.scan import unavailable
from mmmamba.ops.triton.tiling import Tiling

pytestmark = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

SHARED_KIB = {80: 163, 89: 99, 90: 227}
KERNELS = {'local_pass', 'carry', 'final_pass', 'main_pass'}
# Sizes are no constants of the kernels, so that one shape stands for all stages of Mamba YOLO T, B and L.
CASES = [
    {'directions': PATTERNS['cross'], 'batch': 1, 'height': 160, 'width': 160, 'channels': 64, 'states': 16, 'rank': 2,
     'dtype': 'float32', 'arch': [80, 89, 90]},
    {'directions': PATTERNS['cross'], 'batch': 32, 'height': 20, 'width': 20, 'channels': 1152, 'states': 16,
     'rank': 36, 'dtype': 'float16', 'arch': [90]},
    # VMamba, EfficientVMamba, MambaVision
    {'directions': PATTERNS['cross'], 'batch': 1, 'height': 56, 'width': 56, 'channels': 192, 'states': 1, 'rank': 6,
     'dtype': 'float16', 'arch': [90]},
    {'directions': PATTERNS['atrous'], 'batch': 1, 'height': 56, 'width': 56, 'channels': 96, 'states': 16, 'rank': 3,
     'dtype': 'float16', 'arch': [90]},
    # LocalVMamba
    {'directions': ('h', 'v_flip', 'w2', 'w7_flip'), 'batch': 1, 'height': 56, 'width': 56, 'channels': 192,
     'states': 16, 'rank': 6, 'dtype': 'float16', 'arch': [80, 90]},
    {'directions': ('h',), 'batch': 4, 'height': 1, 'width': 196, 'channels': 160, 'states': 8, 'rank': 0,
     'dtype': 'float16', 'arch': [90]},
]


def measured(cases: list[dict]) -> list[dict]:
    """Runs the compilations in a process in which the kernels are not interpreted."""
    environment = {name: value for name, value in os.environ.items() if name != 'TRITON_INTERPRET'}
    script = Path(__file__).with_name('triton_resources.py')
    environment['PYTHONPATH'] = os.pathsep.join(path for path in sys.path if path)
    result = subprocess.run(
        [sys.executable, script, json.dumps(cases)], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def spilling(rows: list[dict]) -> list[str]:
    return [f'{row["kernel"]} for sm_{row["arch"]}: {row}' for row in rows if row['stack'] or row['local_accesses']]


def test_kernels_fit_their_chips():
    rows = measured(CASES)
    for row in rows:
        name = '{kernel}{reverse} {directions} N={states} {dtype} sm_{arch}'.format(
            **row | {'reverse': ' reversed' * row['reverse']}
        )
        print(f'{name}: {row["registers"]} registers, {row["shared"]} bytes shared')
        assert row['shared'] <= SHARED_KIB[row['arch']] * 1024, name
        assert row['exponentials'] > 0, f'{name}: exp2 is no longer one instruction'
    assert {row['kernel'] for row in rows} == KERNELS
    assert not spilling(rows)


def test_a_spill_is_seen():
    case = CASES[0] | {'arch': [90], 'kernels': ['final_pass'], 'tiling': asdict(Tiling(64, block=256))}
    assert spilling(measured([case]))
