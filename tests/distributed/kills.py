"""Kills trainings of two processes at random, and resumes them until they end.

Each trial draws a signal, its target (a process of the training, both, or torchrun) and its moment (a time, or a call
of a hook). The run is resumed, and may be killed again. After each kill, all processes must end soon, with a
documented status and at most one line of error each, and all checkpoints must be whole. At the end, everything must
equal an undisturbed run bit by bit: weights, averages, the optimizer's state, losses, learning rates and AP.

Usage: kills.py [--trials 20] [--seed 0] [--model mamba-yolo_t]     a trial is repeated with its seed and --trials 1
"""
from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch.distributed.elastic.utils.distributed import get_free_port

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests'), str(Path(__file__).parent)]

# What a training imports is imported once, here; mmdet after mmmamba, which supplies mmcv's operators.
import mmmamba.commands.train  # noqa: E402, F401
import mmmamba.datasets  # noqa: E402, F401
import mmmamba.models  # noqa: E402, F401
from mmmamba.engine import latest_checkpoint  # noqa: E402

import matplotlib.pyplot  # noqa: E402, F401  isort: skip
import mmdet.apis  # noqa: E402, F401  isort: skip
import torch._dynamo  # noqa: E402, F401  isort: skip
from conftest import compose_coco_folder  # noqa: E402  isort: skip
from forked import PHASES, Ranks, adopt_orphans, launch  # noqa: E402  isort: skip
from places import descendants  # noqa: E402  isort: skip
from run import validations  # noqa: E402  isort: skip

TOOLS, EPOCHS = ROOT / 'tools', 3
TIMEOUT = 15  # seconds that processes wait for each other
GONE = TIMEOUT + 10  # seconds after which none may be left
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL, signal.SIGINT)
VICTIMS = {'process 0': [0], 'process 1': [1], 'both': [0, 1], 'torchrun': []}
ENDED = 'ended before'
SETTINGS = {
    'float32': ['--cfg-options'],
    'bfloat16': ['--amp', 'bfloat16', '--cfg-options'],
    'accumulated': ['--cfg-options', 'optim_wrapper.accumulative_counts=2'],
}
TOY = f"""
_base_ = '{ROOT}/configs/yolov8/yolov8_n_1xb16-30e_bccd.py'
model = dict(
    backbone=dict(arch=None, depths=(1, 1, 1, 1), widths=(8, 16, 16, 16)), neck=dict(in_channels=[16, 16, 16]),
    bbox_head=dict(in_channels=[16, 16, 16]))
"""


@dataclass
class Lab:
    """Where the runs are.

    Args:
        folder: For everything that they write; has ``data``.
        model: Config that is trained.
        ranks: What the processes of a run tell.
        whole: Seconds and hooks of an undisturbed run of each setting.
        slowest: Seconds after a kill in which all processes had gone, at most.
    """

    folder: Path
    model: object
    ranks: Ranks = field(default_factory=lambda: Ranks(2))
    whole: dict[str, tuple[float, int]] = field(default_factory=dict)
    slowest: float = 0.0

    def start(self, name: str, setting: str, *more: str) -> int:
        """Starts torchrun, and returns its process."""
        for log in self.folder.glob(f'{name}.log*'):  # of the run that is resumed
            log.unlink()
        return launch([
            TOOLS / 'dist_run.py', '--nproc-per-node', 2, '--master-port', get_free_port(), TOOLS / 'train.py',
            self.model, '--launcher', 'pytorch', '--work-dir', self.folder / name, '--data', self.folder / 'data',
            '--image-size', 64, '--epochs', EPOCHS, '--batch-size', 2, '--workers', 1, *more, *SETTINGS[setting],
            'train_cfg.val_interval=1', 'default_hooks.checkpoint.interval=1', 'default_hooks.logger.interval=1',
            f'env_cfg.dist_cfg.timeout={TIMEOUT}'], self.folder / f'{name}.log', self.ranks)

    def wait(self, torchrun: int, seconds: float) -> int | None:
        """Waits until all processes of a run have gone, and returns torchrun's status.

        Raises:
            AssertionError: Some are left; those of the training print where they are.
        """
        status, end = None, time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                process, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if process == torchrun:
                status = os.waitstatus_to_exitcode(code)
            elif not process:
                time.sleep(0.005)
        left = descendants(os.getpid())
        for process in {*self.ranks.pids} & {*left}:
            os.kill(process, signal.SIGUSR2)
        time.sleep(1)
        for process in left:
            os.kill(process, signal.SIGKILL)
        self.wait(torchrun, 10)
        raise AssertionError(f'{len(left)} processes are left after {seconds:.0f} s')

    def train_undisturbed(self, setting: str) -> None:
        start = time.monotonic()
        assert self.wait(self.start(setting, setting), 600) == 0, (self.folder / f'{setting}.log.0').read_text()
        self.whole[setting] = time.monotonic() - start, self.ranks.hooks[0]


@dataclass
class Kill:
    """A signal that is sent to a run.

    Args:
        rng: What draws it.
        seconds, hooks: That the run would take.
    """

    rng: random.Random
    seconds: float
    hooks: int

    def __post_init__(self) -> None:
        self.number, self.whom = self.rng.choice(SIGNALS), self.rng.choice(list(VICTIMS))
        self.second, self.hook = self.rng.choice(
            [(self.rng.uniform(0, self.seconds), 0), (0.0, self.rng.randint(1, self.hooks))])
        self.delay = self.rng.uniform(0, 0.02)
        self.phase = ENDED

    def __str__(self) -> str:
        return f'{self.number.name} to {self.whom}, {self.phase}'

    def hit(self, torchrun: int, ranks: Ranks) -> None:
        """Waits for the moment, and sends the signal, unless torchrun has ended."""
        end, victims = time.monotonic() + self.second, VICTIMS[self.whom]
        latest = end + 10 * self.seconds + GONE
        while time.monotonic() < end or max(ranks.hooks) < self.hook or not all(ranks.pids[rank] for rank in victims):
            if os.waitid(os.P_PID, torchrun, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            assert time.monotonic() < latest, 'it neither ends nor comes to the moment of the kill'
            time.sleep(0.001)
        time.sleep(self.delay)
        self.phase = PHASES[ranks.phases[(victims or [0])[0]]]
        for process in [ranks.pids[rank] for rank in victims] or [torchrun]:
            try:
                os.kill(process, self.number)
            except ProcessLookupError:
                self.phase = ENDED

    def may_end_with(self, status: int) -> bool:
        """Tells whether the documents say that a process has this status then; -1 if a signal ended it."""
        asked = self.number
        if self.whom == 'torchrun' and asked in (signal.SIGKILL, signal.SIGUSR1):  # which end torchrun at once
            asked = signal.SIGTERM
        if asked in (signal.SIGKILL, signal.SIGINT) or self.phase == 'starting':
            return status in (0, 2, -1, 128 + asked)
        return status in (0, 128 + asked) or status == -1 and self.phase != 'training'


def trial(lab: Lab, seed: int, kills: list[Kill]) -> None:
    """Kills a run once or more, and resumes it.

    Args:
        lab: Where.
        seed: What to draw.
        kills: Takes what was done.

    Raises:
        AssertionError: Something is not as it should be.
    """
    rng, name = random.Random(seed), f'trial_{seed}'
    setting, resume, status = rng.choice(list(SETTINGS)), [], None
    while status != 0:
        torchrun = lab.start(name, setting, *resume)
        if resume and rng.random() < 0.7:
            status = lab.wait(torchrun, 600)
            assert status == 0, f'resuming ended with {status}'
        else:
            kills.append(Kill(rng, *lab.whole[setting]))
            kills[-1].hit(torchrun, lab.ranks)
            start = time.monotonic()
            status = lab.wait(torchrun, GONE)
            lab.slowest = max(lab.slowest, time.monotonic() - start)
            _require_orderly_end(lab, name, kills[-1], status)
        resume = ['--resume']
    left = [path.name for path in (lab.folder / name).rglob('.*')]
    assert not left, f'left over: {left}'
    files, expected = ({path.name for path in (lab.folder / run).glob('*.pth')} for run in (name, setting))
    assert files == expected, f'checkpoints {sorted(files)}, not {sorted(expected)}'
    for file in files:
        different = list(_differences(*(_state(torch.load(lab.folder / run / file)) for run in (name, setting))))
        assert not different, f'{file}: {len(different)} parts differ: {different[:3]}'
    ap, expected_ap = (validations(lab.folder / run) for run in (name, setting))
    assert ap == expected_ap, f'validated {sorted(ap ^ expected_ap)}'
    shutil.rmtree(lab.folder / name)


def _require_orderly_end(lab: Lab, name: str, kill: Kill, status: int) -> None:
    statuses = list(lab.ranks.statuses)
    assert all(map(kill.may_end_with, statuses)), f'processes ended with {statuses}'
    assert status in (0, 2, 128 + kill.number) or kill.whom == 'torchrun' and status == -kill.number, (
        f'torchrun ended with {status}, its processes with {statuses}')
    for log in lab.folder.glob(f'{name}.log*'):
        errors = re.findall('^error: .*|^.*Traceback', log.read_text(), re.MULTILINE)
        assert len(errors) < 2 and 'Traceback' not in ''.join(errors), f'{log.name}: {errors}'
    if statuses[0] in (143, 138):
        assert 'stopped by SIG' in (lab.folder / f'{name}.log.0').read_text(), 'process 0 does not say that it stopped'
    for path in (lab.folder / name).glob('*.pth'):
        torch.load(path)
    latest_checkpoint(lab.folder / name)  # raises if it names one that is not there


def _state(checkpoint: dict) -> dict:
    """Returns what of a checkpoint depends neither on times and places nor on whether a validation was repeated."""
    logs = {name: vars(log) for name, log in checkpoint['message_hub']['log_scalars'].items()
            if re.match('train/(?!time|data_time|memory)', name)}
    parts = 'state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'
    return {'logs': logs, 'iter': checkpoint['meta']['iter'], **{part: checkpoint.get(part) for part in parts}}


def _differences(one: object, two: object, where: str = '') -> Iterator[str]:
    if isinstance(one, dict) and isinstance(two, dict) and one.keys() == two.keys():
        for key in one:
            yield from _differences(one[key], two[key], f'{where}/{key}')
    elif isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)) and len(one) == len(two):
        for index, pair in enumerate(zip(one, two)):
            yield from _differences(*pair, f'{where}/{index}')
    elif not torch.equal(*map(torch.as_tensor, (one, two))) if hasattr(one, 'shape') else one != two:
        yield where


def _enlarge_boxes(annotations: Path) -> None:
    """Gives every object a box as large as its picture, which a detector hits that has hardly learnt: AP is not 0."""
    content = json.loads(annotations.read_text())
    sizes = {image['id']: (image['width'], image['height']) for image in content['images']}
    for label in content['annotations']:
        width, height = sizes[label['image_id']]
        label.update(bbox=[0, 0, width, height], area=width * height)
    annotations.write_text(json.dumps(content))


def _print_table(kills: list[Kill]) -> None:
    counts, columns = Counter((kill.number, kill.phase) for kill in kills), (*PHASES, ENDED)
    print(f'| signal | {" | ".join(columns)} |\n|---|{"---|" * len(columns)}')
    for number in SIGNALS:
        print(f'| {number.name} | {" | ".join(str(counts[number, phase]) for phase in columns)} |')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--trials', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0, help='of the first trial; the next one has the next')
    parser.add_argument('--model', help='config that is trained, instead of a toy')
    args = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    torch.set_num_threads(1)
    gc.freeze()  # what is here need not be looked at again in every process
    adopt_orphans()
    start, kills, failed = time.monotonic(), [], 0
    folder = Path(mkdtemp())  # not TemporaryDirectory, which each copy of this process would delete at its end
    try:
        lab = Lab(folder, args.model or folder / 'toy.py')
        (folder / 'toy.py').write_text(TOY)
        os.chdir(folder)  # where mmengine gathers results
        compose_coco_folder(folder / 'data', images=16)
        compose_coco_folder(folder / 'data', images=4, split='val', seed=1)
        _enlarge_boxes(folder / 'data/annotations/val.json')
        for setting in SETTINGS:
            lab.train_undisturbed(setting)
        for seed in range(args.seed, args.seed + args.trials):
            before = len(kills)
            try:
                trial(lab, seed, kills)
            except Exception as error:  # the others run all the same
                failed += 1
                done = '; '.join(map(str, kills[before:]))
                print(f'--seed {seed}: {done}: {type(error).__name__}: {error}', flush=True)
                for log in sorted(folder.glob(f'trial_{seed}.log*')):
                    print(f'--- {log.name}\n{log.read_text()[-4000:]}', flush=True)
    finally:
        shutil.rmtree(folder)
    _print_table(kills)
    print(f'{args.trials} trials, {len(kills)} kills, {failed} failed; after a kill all processes were gone in '
          f'{lab.slowest:.1f} s at most; {time.monotonic() - start:.0f} s in all')
    sys.exit(failed > 0)


if __name__ == '__main__':
    main()
