"""A training run of seconds with every part whose state a resumed run has to find again.

Run as a program by the tests, because some of them end it with SIGKILL.
"""
from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from uuid import uuid4

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import distributed, nn
from torch.distributed.elastic.utils.distributed import get_free_port
from torch.utils.data import Dataset, Sampler

from mmmamba.cli import describe
from mmmamba.engine import CheckedDataParallel, CheckedRunner, TrainingStopped, prepare_distributed
from mmmamba.errors import InputError

import mmdet.models  # noqa: F401  isort: skip  (after mmmamba, which supplies mmcv's operators)
from mmdet.registry import DATA_SAMPLERS, HOOKS, METRICS, MODELS

SIZE = 32
CLASSES = ('square', 'wide', 'tall')


@MODELS.register_module()
class ToyDetector(BaseModel):
    """Sums coordinates of boxes, and predicts which process it was trained in.

    It has a frozen parameter and, unless it is plain, BatchNorm and dropout.
    """

    def __init__(self, data_preprocessor: dict, plain: bool) -> None:
        super().__init__(data_preprocessor)
        stochastic = () if plain else (nn.BatchNorm2d(8), nn.Dropout2d(0.2))
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), *stochastic, nn.ReLU(),
                                      nn.Conv2d(8, 8, 3, stride=2), nn.ReLU())
        self.count = nn.Linear(8, 1)
        self.frozen = nn.Parameter(torch.arange(4.0), requires_grad=False)
        self.rank = nn.InstanceNorm1d(1, track_running_stats=True)  # as its running mean

    def forward(self, inputs, data_samples=None, mode='tensor'):
        counts = self.count(self.features(inputs).mean((2, 3)))[:, 0]
        if mode == 'predict':
            return self.rank.running_mean.expand(len(inputs))
        if mode == 'loss':
            self.rank.running_mean.fill_(get_rank())
            truth = torch.stack([sample.gt_instances.bboxes.sum() / 100 for sample in data_samples]).to(counts)
            return {'loss': nn.functional.smooth_l1_loss(counts.float(), truth.float())}
        return counts


@HOOKS.register_module()
class KillHook(Hook):
    """Ends the process as a power cut would."""

    priority = 'LOWEST'

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if runner.iter + 1 == self.iteration:
            os.kill(os.getpid(), signal.SIGKILL)


def config(data: Path, work_dir: Path, *, epochs: int = 4, workers: int = 2, persistent: bool = False,
           wrapper: dict | None = None, accumulate: int = 1, hooks: tuple[dict, ...] = (), batch_size: int = 4,
           plain: bool = False) -> Config:
    """The config of a run over the 16 images of ``shared_coco_folder``."""
    train = [dict(type='RandomHSV'), dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
    return Config(dict(
        default_scope='mmdet',
        work_dir=str(work_dir),
        log_level='WARNING',
        randomness=dict(seed=5),
        env_cfg=dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='gloo')),
        model=dict(type='ToyDetector', plain=plain, data_preprocessor=dict(
            type='DetDataPreprocessor', mean=[0, 0, 0], std=[255, 255, 255], bgr_to_rgb=True)),
        train_dataloader=dict(
            batch_size=batch_size, num_workers=workers, persistent_workers=persistent and workers > 0,
            sampler=dict(type='SeededSampler'),
            dataset=dict(
                type='SeededDataset',
                dataset=dict(
                    type='CheckedCocoDataset', data_root=str(data), ann_file='annotations/train.json',
                    data_prefix=dict(img='train'), metainfo=dict(classes=CLASSES),
                    pipeline=[dict(type='LoadCheckedImage'), dict(type='LoadAnnotations', with_bbox=True)]),
                pipeline=[dict(type='Mosaic', img_scale=(SIZE, SIZE)),
                          dict(type='CenteredRandomAffine', border=(-SIZE // 2, -SIZE // 2)), *train])),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=epochs),
        optim_wrapper=dict(
            **(wrapper or dict(type='OptimWrapper')), constructor='YOLOOptimWrapperConstructor',
            accumulative_counts=accumulate,
            optimizer=dict(type='SGD', lr=0.01, momentum=0.937, nesterov=True, weight_decay=5e-4)),
        param_scheduler=[
            dict(type='WarmupLinearLR', warmup_epochs=2, convert_to_iter_based=True),
            dict(type='WarmupMomentum', warmup_epochs=2, convert_to_iter_based=True)],
        default_hooks=dict(checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2)),
        custom_hooks=[
            dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=1e-4, gamma=2000, update_buffers=True),
            dict(type='ExactResumeHook'), dict(type='ScaleWeightDecayHook'), dict(type='NonFiniteLossHook'),
            dict(type='UnreadableImagesHook'),
            dict(type='PipelineSwitchHook', switch_epoch=epochs - 1, switch_pipeline=[
                dict(type='Resize', scale=(SIZE, SIZE), keep_ratio=True),
                dict(type='Pad', size=(SIZE, SIZE), pad_val=dict(img=(114, 114, 114))),
                dict(type='CenteredRandomAffine'), *train]),
            *hooks]))


def train(cfg: Config, *hooks: Hook) -> CheckedRunner:
    """Trains with further hooks, under a name of its own: runs of one name share their log."""
    cfg.experiment_name = uuid4().hex  # mmengine's own are made of the second
    runner = CheckedRunner.from_cfg(cfg)
    for hook in hooks:
        runner.register_hook(hook)
    runner.train()
    return runner


def assert_same_end(one: dict, two: dict) -> None:
    """Compares weights, averages, the optimizer's settings and all losses in two checkpoints, bit by bit."""
    for part in ('state_dict', 'ema_state_dict'):
        assert one[part].keys() == two[part].keys()
        assert [name for name in one[part] if not torch.equal(one[part][name], two[part][name])] == []
    assert one['optimizer']['param_groups'] == two['optimizer']['param_groups']
    assert one['optimizer'].get('loss_scaler') == two['optimizer'].get('loss_scaler')
    losses = [state['message_hub']['log_scalars']['train/loss']._log_history.tolist() for state in (one, two)]
    assert losses[0] == losses[1] and len(losses[0]) == one['meta']['iter']


SCENARIOS = {
    'float32': dict(),
    'bfloat16-accumulated-persistent': dict(
        persistent=True, accumulate=3, wrapper=dict(type='AutocastOptimWrapper', dtype='bfloat16')),
    'float16-one-worker': dict(workers=1, wrapper=dict(type='AutocastOptimWrapper', dtype='float16')),
}


@HOOKS.register_module()
class SignalHook(Hook):
    """Sends the process SIGUSR1 in the middle of an iteration, once."""

    def __init__(self, iteration: int) -> None:
        self.iteration = iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if runner.iter == self.iteration:
            os.kill(os.getpid(), signal.SIGUSR1)


@METRICS.register_module()
class CountMetric(BaseMetric):
    """Counts the images, and the models that they were given to."""

    default_prefix = 'toy'

    def process(self, data_batch: dict, data_samples: list) -> None:
        self.results.extend(map(float, data_samples))

    def compute_metrics(self, results: list) -> dict[str, int]:
        return {'images': len(results), 'models': len(set(results))}


@DATA_SAMPLERS.register_module()
class UnevenSampler(Sampler):
    """Gives the first process two images more than the second."""

    def __init__(self, dataset: Dataset, seed: int | None = None) -> None:
        self.images = [range(9), range(9, len(dataset))][get_rank()]

    def __iter__(self) -> Iterator[int]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def in_two_processes(train: Callable[[int], None]) -> None:
    """Calls a function with each rank, in two processes that can find each other as torchrun's do."""
    os.environ.update(WORLD_SIZE='2', MASTER_ADDR='localhost', MASTER_PORT=str(get_free_port()))
    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
            try:
                train(rank)
            except BaseException:  # the parent's own code must not go on here
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
    if any([os.waitpid(child, 0)[1] for child in children]):
        sys.exit('one of two processes failed')


def assert_dies_with(parent: int, end_of_process: int, seconds: float) -> None:
    """Kills a process, and checks that another, which it started, ends soon.

    Args:
        parent: Which is killed.
        end_of_process: A pipe whose other end the other process has; it has written ``ready``.
        seconds: How soon.
    """
    assert os.read(end_of_process, 5) == b'ready'
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert select.select([end_of_process], [], [], seconds)[0] and os.read(end_of_process, 5) == b''
    os.close(end_of_process)


def train_in_two_processes(data: Path, work_dir: Path, stop: str = '', end: str = 'SignalHook') -> None:
    """Trains, or goes on, as torchrun would start it, 2 images for each process, over gloo.

    A step of the optimizer has three iterations. The processes validate unequal numbers of images, as they do with
    ``round_up=False``. Their current folders are as different as those of two machines.

    Args:
        data: The data set.
        work_dir: Of the run.
        stop: The iteration in which the second process alone is sent a signal.
        end: The hook that sends it.
    """
    def train(rank: int) -> None:
        machine = work_dir / f'machine_{rank}'
        machine.mkdir(parents=True, exist_ok=True)
        os.chdir(machine)
        hooks = (dict(type=end, iteration=int(stop)), ) if stop and rank else ()
        cfg = config(data, work_dir, workers=0, plain=True, batch_size=2, hooks=hooks, accumulate=3)
        cfg.val_dataloader = dict(batch_size=1, num_workers=0, dataset=cfg.train_dataloader.dataset,
                                  sampler=dict(type='UnevenSampler'))
        cfg.val_cfg, cfg.val_evaluator = dict(), dict(type='CountMetric')
        cfg.launcher, cfg.resume = 'pytorch', True
        prepare_distributed(cfg, 'pytorch')
        try:
            CheckedRunner.from_cfg(cfg).train()
        except TrainingStopped as error:
            print(error, flush=True)
        except RuntimeError as error:
            print(describe(error), flush=True)

    in_two_processes(train)


_TWO_EPOCHS = dict(epochs=2, accumulate=2)
ZERO = dict(type='ZeroRedundancyOptimizer', optimizer_type='SGD')
OPTIONS = {
    'plain': (_TWO_EPOCHS, dict()),
    'buckets': (_TWO_EPOCHS, dict(model_wrapper_cfg=dict(bucket_cap_mb=0.001))),
    'bfloat16': (_TWO_EPOCHS, dict(model_wrapper_cfg=dict(gradient_dtype='bfloat16'))),
    'bfloat16-buckets': (_TWO_EPOCHS, dict(
        model_wrapper_cfg=dict(gradient_dtype='bfloat16', bucket_cap_mb=0.001, find_unused_parameters=True))),
    'zero': (_TWO_EPOCHS, dict(optim_wrapper=dict(optimizer=ZERO))),
    'all': (dict(epochs=2, wrapper=dict(type='AutocastOptimWrapper', dtype='float16')), dict(
        model_wrapper_cfg=dict(gradient_dtype='bfloat16', bucket_cap_mb=0.001),
        optim_wrapper=dict(optimizer=ZERO))),
}
"""Settings for many GPUs: arguments of :func:`config`, and what is merged into it."""


def train_with_options(data: Path, work_dirs: Path) -> None:
    """Trains with each of ``OPTIONS``, once more with all of them, stopped and resumed, and groups SyncBN.

    Each process says a line: the folder, its rank, how many calls of :func:`torch.distributed.all_reduce` had
    gradients and of how many bytes, and the numbers in its optimizer's state.
    """
    def train(name: str, rank: int, stop: int | None = None, folder: str = '') -> None:
        arguments, changes = OPTIONS[name]
        hooks = () if stop is None else (dict(type='SignalHook', iteration=stop), )
        cfg = config(data, work_dirs / (folder or name), workers=0, plain=True, batch_size=2, hooks=hooks, **arguments)
        cfg.merge_from_dict(changes)
        cfg.launcher, cfg.resume = 'pytorch', True
        prepare_distributed(cfg, 'pytorch')
        sent = []
        reduce = distributed.all_reduce
        distributed.all_reduce = lambda tensor, *args, **settings: (  # DDP itself does not call it
            sent.append(tensor.nbytes if tensor.is_floating_point() else 0), reduce(tensor, *args, **settings))[1]
        runner = CheckedRunner.from_cfg(cfg)
        try:
            runner.train()
        except TrainingStopped:
            return
        optimizer = runner.optim_wrapper.optimizer
        kept = sum(state['momentum_buffer'].numel() for state in getattr(optimizer, 'optim', optimizer).state.values())
        say(folder or name, rank, sum(map(bool, sent)), sum(sent), kept)

    for name in OPTIONS:
        in_two_processes(partial(train, name))
    for stop in (4, None):
        in_two_processes(partial(train, 'all', stop=stop, folder='all-resumed'))
    in_two_processes(group_norms)


def say(*words: object) -> None:
    """Prints a line at once, since other processes print, too."""
    os.write(1, f'{" ".join(map(str, words))}\n'.encode())


def group_norms(rank: int) -> None:
    """Says with which ranks SyncBN normalises in groups of 1 and of 2, and what is wrong with 3.

    PyTorch's SyncBN does not compute on a CPU, so our check and PyTorch's are left out, and nothing is computed.
    """
    prepare_distributed(Config(), 'pytorch')
    for check in ('_require_gpu', '_passing_sync_batchnorm_handle'):
        setattr(CheckedDataParallel, check, staticmethod(lambda module: None))
    for size in (1, 2, 3):
        model = nn.SyncBatchNorm.convert_sync_batchnorm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
        try:
            wrapped = CheckedDataParallel(model, sync_bn_group=size)
        except InputError as error:
            say('group', rank, error)
            continue
        deepcopy(wrapped.module)  # as EMAHook does before the training
        wrapped.train()
        say('group', rank, *distributed.get_process_group_ranks(wrapped.module[1].process_group))
    distributed.barrier()  # the first process is where they meet


def train_and_kill(data: Path, work_dirs: Path) -> None:
    """Trains every scenario in a process of its own that kills itself after 11 of 16 iterations, in epoch 3."""
    for name, arguments in SCENARIOS.items():
        child = os.fork()  # importing everything anew would take longer than training
        if child == 0:
            Runner.from_cfg(config(data, work_dirs / name, hooks=(dict(type='KillHook', iteration=11),),
                                   **arguments)).train()
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
            sys.exit(f'{name} ended with status {status} before it was killed')


def hasten() -> None:
    """Does once what each process would, and spares the rest: imports of optimizers, and breaking a config's lines."""
    import torch._dynamo  # noqa: F401
    from mmengine.config import config as mmengine_config
    from yapf.yapflib import yapf_api

    owner = mmengine_config if hasattr(mmengine_config, 'FormatCode') else yapf_api  # as conftest.py does
    owner.FormatCode = lambda text, **_: (text, False)


if __name__ == '__main__':
    torch.set_num_threads(1)
    hasten()
    {'kill': train_and_kill, 'two': train_in_two_processes, 'options': train_with_options}[sys.argv[1]](
        *map(Path, sys.argv[2:4]), *sys.argv[4:])
