"""Several processes, also on machines without a GPU."""
from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import warnings
from contextlib import suppress
from datetime import timedelta

import torch
from mmengine.config import Config
from torch import distributed

from mmmamba.errors import InputError

_LONGEST_WAIT = 600  # seconds, as PyTorch's for NCCL
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def prepare_distributed(cfg: Config, launcher: str) -> None:
    """Completes how several processes wrap the model, and lets mmengine's launchers run them on CPUs, over gloo.

    What a ``model_wrapper_cfg`` without a type leaves out is as mmengine has it without such a config: naming one
    setting changes no other. Its type is :class:`~mmmamba.engine.CheckedDataParallel` where it names a setting of that
    class, and on CPUs; else the config in the work dir stays one that mmdet's tools can run.

    Without a GPU, mmengine would still select a CUDA device, both when it sets the process group up and when it wraps
    the model; so the group is made here, and the wrapper told to name no device. On any device, the processes of
    a torchrun that is killed end as well.

    Args:
        cfg: The runner's config; ``model_wrapper_cfg`` is completed.
        launcher: ``'none'``, ``'pytorch'``, ``'slurm'`` or ``'mpi'``.

    Raises:
        InputError: A launcher that needs GPUs on a machine without one, that has not started this process, or that has
            ended where the processes meet.
    """
    if launcher == 'pytorch' and 'TORCHELASTIC_RUN_ID' in os.environ:
        _end_with_torchrun()
    if launcher == 'none':
        return
    wrapper, on_gpus = cfg.get('model_wrapper_cfg') or {}, torch.cuda.is_available()
    if 'type' not in wrapper and (wrapper or not on_gpus):
        ours = not on_gpus or 'gradient_dtype' in wrapper or 'sync_bn_group' in wrapper
        cfg.model_wrapper_cfg = dict(
            type='CheckedDataParallel' if ours else 'MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
            **({} if on_gpus else {'device_ids': None}))
        cfg.model_wrapper_cfg.update(wrapper)
    # PyTorch has had another name for the argument since 2.13, and only since then.
    warnings.filterwarnings('ignore', message='`broadcast_buffers` is deprecated', category=FutureWarning)
    # Of 1x1 kernels on maps in channels_last: only the strides of sides of 1 differ, which means nothing.
    warnings.filterwarnings('ignore', message='Grad strides do not match bucket view strides')
    if on_gpus:
        return
    if launcher == 'slurm':
        _take_slurms_names()
    elif launcher != 'pytorch':
        raise InputError(f'without a GPU, several processes need --launcher pytorch or slurm, not {launcher}')
    os.environ.setdefault('MKL_NUM_THREADS', os.environ.get('OMP_NUM_THREADS', '1'))  # mmengine would, with a warning
    distributed.init_process_group('gloo', timeout=longest_wait(cfg))


def signal_at_end_of_parent(number: int) -> None:
    """Has the system signal this process when the one that started it ends, however that may be; on Linux alone."""
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def longest_wait(cfg: Config) -> timedelta:
    """Returns how long a process waits for the others before it gives up: ``env_cfg.dist_cfg.timeout`` (seconds).

    PyTorch's own default for gloo is half an hour, in which a run whose network is gone just hangs.
    """
    return timedelta(seconds=cfg.get('env_cfg', {}).get('dist_cfg', {}).get('timeout', _LONGEST_WAIT))


def _end_with_torchrun() -> None:
    """Has this process end when torchrun is killed, which leaves its processes behind.

    They would go on next to the run that is resumed, or wait for each other: where they meet is kept by torchrun.
    """
    signal_at_end_of_parent(signal.SIGTERM)
    if os.environ.get('TORCHELASTIC_USE_AGENT_STORE') == 'True':
        place = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
        with suppress(OSError):  # what else may be wrong is said when they meet
            try:
                socket.create_connection(place, 10).close()
            except ConnectionRefusedError:
                raise InputError(f'the torchrun at {place[0]}:{place[1]}, where the processes of this run meet, has '
                                 'ended') from None


def _take_slurms_names() -> None:
    """Sets what PyTorch reads from what ``srun`` sets: processes, where they meet (the first node), and threads."""
    try:
        names = {'RANK': 'SLURM_PROCID', 'LOCAL_RANK': 'SLURM_LOCALID', 'WORLD_SIZE': 'SLURM_NTASKS'}
        os.environ.update({name: os.environ[slurms] for name, slurms in names.items()})
        nodes = os.environ['SLURM_NODELIST']
    except KeyError as error:
        raise InputError(f'--launcher slurm: {error} is not set; start the processes with srun') from None
    if 'MASTER_ADDR' not in os.environ:
        command = ['scontrol', 'show', 'hostnames', nodes]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:  # a container, for example, often lacks it
            raise InputError(f'--launcher slurm: scontrol does not name the nodes ({error}); set MASTER_ADDR to the '
                             'first one') from error
        os.environ['MASTER_ADDR'] = listed.stdout.split()[0]
    os.environ.setdefault('MASTER_PORT', '29500')
    if 'OMP_NUM_THREADS' not in os.environ:  # else each process would use all cores of its node
        os.environ['OMP_NUM_THREADS'] = os.environ.get('SLURM_CPUS_PER_TASK', '1')
        torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))
