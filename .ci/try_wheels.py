"""``make try-wheels``: installs what ``make wheels`` built in an empty environment, and uses it as a newcomer would.

The wheel of this machine is installed with ``mmmamba[lite]``; the wheel without libraries and the sdist then take its
place one after the other. The wheel of the other machine cannot run here: its kernels are run by the tests.

Usage: try_wheels.py [ARGUMENTS OF PIP]     for example --extra-index-url with an index of PyTorch's CPU builds
"""
from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from empty_environment import DIST, EmptyEnvironment, run

# A scan forward and backward, a config by its name built, and the OpenMP runtimes of the process.
USE = """
import sys
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
import mmmamba
from mmdet.registry import MODELS
from mmmamba.ops import ss2d_scan
from mmmamba.ops.cpu import native
from mmmamba.package_files import find_config

assert 'site-packages' in mmmamba.__file__, mmmamba.__file__
assert (native.unavailable() is None) == (sys.argv[1] == 'True'), native.unavailable()
torch.manual_seed(0)
inputs = [torch.randn(size) for size in (
    (2, 12, 9, 7), (4, 1 + 2 * 4, 12), (4, 12, 1), (4, 12), (48, 4), (48,))]
results = []
for backend, dtype in ((None, torch.float32), ('reference', torch.float64)):
    leaves = [value.to(dtype).requires_grad_() for value in inputs]
    y = ss2d_scan(*leaves, backend=backend)
    results.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
for got, expected in zip(*results):
    assert (got - expected).norm() < 1e-4 * expected.norm()
init_default_scope('mmdet')
MODELS.build(Config.fromfile(find_config('mamba-yolo_t')).model)
with open('/proc/self/maps') as file:
    runtimes = {line.split()[-1] for line in file if 'libgomp' in line or 'libiomp' in line or 'libomp' in line}
assert len(runtimes) == 1, runtimes
print('OpenMP:', *runtimes)
"""


def main() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        environment = EmptyEnvironment(folder / 'environment', sys.argv[1:])
        python, command = environment.python, environment.command
        for package in (environment.wheel, next(DIST.glob('*any.whl')), next(DIST.glob('*.tar.gz'))):
            if package is environment.wheel:
                environment.install_wheel('lite')
            else:
                environment.install('--force-reinstall', '--no-deps', str(package))
            print(f'== {package.name}', flush=True)
            for line in ([command, '--version'], [python, '-m', 'mmmamba.ops.info'], [command, 'train', '--help'],
                         [python, '-c', USE, str(not package.name.endswith('any.whl'))]):
                printed = run(line, folder)
                print(printed if line[-1] != '--help' else printed.partition('\n')[0], flush=True)


if __name__ == '__main__':
    main()
