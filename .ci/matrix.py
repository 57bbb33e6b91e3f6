"""``make test-matrix``: tests the wheel of ``dist`` with every supported set of libraries, in an environment for each.

In each, pip installs the wheel as a user would, and the tests run that show the public contract: the operators against
their reference, every config built, one of each kind trained for two steps, commands, training and resuming. Prints
the table of docs/compatibility.md. Takes some 15 minutes and 2 GB for each environment, which is deleted.

Usage: matrix.py [--any-build] [ARGUMENTS OF PIP]
    --any-build            takes PyTorch's CUDA build, of several GB, where pip finds no CPU build
    ARGUMENTS OF PIP       for example --extra-index-url with an index of PyTorch's CPU builds
"""
from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
ANY_BUILD = '--any-build' in sys.argv
PIP_ARGUMENTS = [argument for argument in sys.argv[1:] if argument != '--any-build']
TESTS = ('tests/test_ops/test_ss2d_scan.py', 'tests/test_ops/test_native.py', 'tests/test_compat',
         'tests/test_commands.py', 'tests/test_configs.py', 'tests/test_models/test_yolov8_head.py',
         'tests/test_tools/test_train_and_test.py::test_train_resume_and_test')
NAMES = {'mmdet': ('mmdet', 'onedl-mmdetection'), 'mmengine': ('mmengine', 'onedl-mmengine'),
         'mmcv': ('mmcv-lite', 'onedl-mmcv')}
# Where OneDL's libraries differ on purpose, and nothing of ours can or should change that: see docs/compatibility.md.
ONEDL_DIFFERS = (
    'tests/test_compat/test_install.py::test_mmengine_sees_that_nothing_is_compiled',
    'tests/test_compat/test_package_lookup.py::test_a_config_inherits_mmdets')


class Row(NamedTuple):
    """An environment: a Python, a PyTorch, and the extra of setup.py that brings the other libraries."""

    python: str
    torch: str
    extra: str
    pinned: bool  # to requirements/constraints.txt
    deselected: tuple[str, ...] = ()


ROWS = (
    Row('3.11', '2.13.0', 'lite', pinned=True),
    Row('3.11', '2.13.0', 'onedl', pinned=False, deselected=ONEDL_DIFFERS),
    Row('3.11', '2.14.1', 'lite', pinned=True),
    Row('3.11', '2.14.1', 'onedl', pinned=False, deselected=ONEDL_DIFFERS),
    Row('3.9', '2.4.1', 'lite', pinned=False),
)


def main() -> None:
    wheels = list((ROOT / 'dist').glob('*x86_64.whl'))
    if len(wheels) != 1:
        sys.exit('error: dist has no wheel of this machine; make wheels builds it')
    print('| Python | PyTorch | extra | mmdet | mmengine | mmcv | tests |\n|---|---|---|---|---|---|---|', flush=True)
    failed = False
    for row in ROWS:
        with TemporaryDirectory() as folder:
            versions, result = _try(row, wheels[0], Path(folder))
        failed |= 'failed' in result or 'error' in result
        print(f'| {row.python} | {row.torch} | `{row.extra}` | {" | ".join(versions)} | {result} |', flush=True)
    sys.exit(failed)


def _try(row: Row, wheel: Path, folder: Path) -> tuple[list[str], str]:
    """Returns the versions of mmdet, mmengine and mmcv, and what the tests gave or why they were not run."""
    nothing = ['–'] * len(NAMES)
    interpreter = shutil.which(f'python{row.python}')
    if interpreter is None:
        return nothing, f'not run: no Python {row.python} here'
    _run([interpreter, '-m', 'venv', str(folder)])
    python = str(folder / 'bin' / 'python')
    pip = [python, '-m', 'pip', 'install', '--quiet', '--no-compile', '--disable-pip-version-check', *PIP_ARGUMENTS]
    torch = f'torch=={row.torch}+cpu'  # by name, so that pip takes no CUDA build of several GB unasked
    found = _run([*pip, torch])
    if found.returncode and ANY_BUILD:
        torch = f'torch=={row.torch}'
        found = _run([*pip, torch])
    if found.returncode:
        # The second is what pip says where its settings limit PyTorch's versions.
        if re.search('No matching distribution found|ResolutionImpossible', found.stderr):
            return nothing, f'not run: pip finds no CPU build of PyTorch {row.torch}'
        return nothing, f'error: {found.stderr.splitlines()[-1]}'
    constraints = folder / 'constraints.txt'
    pins = (ROOT / 'requirements/constraints.txt').read_text(encoding='utf-8').splitlines()
    its_own = ('torch', ) if f'torch=={row.torch}' in pins else ('torch', 'triton')  # each has its Triton
    constraints.write_text('\n'.join([torch, *(pin for pin in pins if row.pinned and not pin.startswith(its_own))]))
    made = _run([*pip, '-c', str(constraints), f'mmmamba[{row.extra},demo] @ {wheel.as_uri()}',
                 'pytest', 'hypothesis'])
    if made.returncode:
        return nothing, f'error: {made.stderr.splitlines()[-1]}'
    versions = [_run([python, '-c', VERSION, *NAMES[name]]).stdout.strip() for name in NAMES]
    # Not `python -m pytest`, which would put the clone before the wheel.
    command = [str(folder / 'bin' / 'pytest'), '-q', '-p', 'no:cacheprovider', *TESTS,
               *(f'--deselect={name}' for name in row.deselected)]
    done = _run(command)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
    summary = re.findall(r'^=* ?(\d+ (?:passed|failed|error).*?) in [\d.]+s', done.stdout, re.MULTILINE)
    return versions, re.sub(r', \d+ warnings?', '', summary[-1]) if summary else 'error: the tests did not start'


VERSION = """
import sys
from importlib.metadata import PackageNotFoundError, version
for name in sys.argv[1:]:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        pass
"""


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


if __name__ == '__main__':
    main()
