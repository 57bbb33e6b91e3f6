"""How training Mamba YOLO on COCO scales to many GPUs, on paper: ``python -m benchmarks.scale``.

A batch of 512 is divided among 8, 64 and 512 GPUs, eight to a machine. Gradients, batch norms and the recipe are those
of the configs; times of a GPU are rows of this folder's CSV files, rates of a CPU rows of ``scale_cpu.csv``, which
``--measure`` writes; bandwidths and latencies are the constants below. Nothing of it was run on more than one GPU.
"""
from __future__ import annotations

import argparse
import csv
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.config import Config
from torch import nn

from mmmamba.analysis import build_detector
from mmmamba.analysis.measure import Table, with_environment, write_csv

from benchmarks.scale_cpu import COCO_BYTES, measure  # isort: skip  (after mmmamba, which supplies mmcv's operators)

FOLDER = Path(__file__).parent
CONFIGS = FOLDER.parent / 'configs/mamba_yolo'
RATES = FOLDER / 'scale_cpu.csv'
GPUS = (8, 64, 512)
BATCH, TRAIN_IMAGES, VAL_IMAGES = 512, 118_287, 5_000  # COCO 2017

MACHINE = 8  # GPUs
NVLINK = 450e9  # bytes/s of a GPU in one direction: NVLink 4, 900 GB/s in both (H100 SXM's data sheet)
INFINIBAND = MACHINE * 50e9  # bytes/s of a machine: an NDR port of 400 Gb/s for each GPU, as in a DGX H100
ETHERNET = 25e9 / 8  # bytes/s of a machine without such ports
REACHED = 0.7  # of a bandwidth, by messages of some MB; an assumption
# Seconds that NCCL's own model takes for short messages (src/graph/tuning.cc, protocol LL): a call; a hop in a tree,
# of all-reduce, and in a ring, of all-gather, within a machine and over InfiniBand.
CALL, TREE_HOP, RING_HOP = 6.8e-6, 0.6e-6, 0.6e-6
TREE_NET_HOP, RING_NET_HOP = 5.0e-6, 2.7e-6
TCP_HOP = 50e-6  # of Ethernet, through the kernel; an assumption
BUCKETS = (25 * 2**20, 5 * 2**20)  # bytes: DistributedDataParallel's default, and bucket_cap_mb=5
BACKWARD = 2 / 3  # of a step, in which gradients can be sent
LAUNCH = 10e-6  # seconds of a collective that a GPU's host starts; an assumption


class Model(NamedTuple):
    """What of a model and its recipe matters here."""
    gradients: int
    tensors: int
    norms: list[int]
    epochs: int
    validations: int
    workers: int


class Speed(NamedTuple):
    """Of one GPU, in seconds: the least step, in which the host launches; a training image; a validation image."""
    launches: float
    image: float
    val_image: float


class Network(NamedTuple):
    """Between machines: bytes/s of a machine, and seconds a hop in a tree and in a ring."""
    bandwidth: float
    tree_hop: float
    ring_hop: float


FAST = Network(INFINIBAND, TREE_NET_HOP, RING_NET_HOP)
SLOW = Network(ETHERNET, TCP_HOP, TCP_HOP)


def read_model(size: str) -> Model:
    """Counts the detector in a config, and reads its recipe."""
    path = CONFIGS / f'mamba-yolo_{size}_8xb64-300e_coco.py'
    detector, cfg = build_detector(str(path)), Config.fromfile(path)
    trained = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    norms = [module.num_features for module in detector.modules() if isinstance(module, nn.BatchNorm2d)]
    return Model(sum(map(torch.Tensor.numel, trained)), len(trained), norms, cfg.train_cfg.max_epochs,
                 math.ceil(cfg.train_cfg.max_epochs / cfg.train_cfg.val_interval), cfg.train_dataloader.num_workers)


def read_speed(size: str) -> Speed:
    """Finds a model's times on a GPU among the rows.

    A step of one image is launching alone, and was timed for T; other sizes launch as much more as their forward pass
    does. A training image of T is one of a batch of 32, of the others one of 16: the largest that were timed.
    """
    with (FOLDER / 'h200/networks.csv').open(newline='') as file:
        rows = {(row['kind'], row['mode'], row['network']): float(row['median_ms']) / 1e3
                for row in csv.DictReader(file)}
    with (FOLDER / 'h100/tilings.csv').open(newline='') as file:
        steps = {int(row['batch']): float(row['this_ms']) / 1e3 for row in csv.DictReader(file)
                 if row['pass'] == 'training step'}
    latency = {name: rows['latency', 'eager', f'mamba-yolo_{name}'] for name in ('t', size)}
    image = steps[32] / 32 if size == 't' else rows['training', 'eager', f'mamba-yolo_{size}'] / 16
    return Speed(steps[1] * latency[size] / latency['t'], image,
                 rows['throughput', 'eager', f'mamba-yolo_{size}'] / 32)


def read_rates(path: Path) -> dict[str, float]:
    """Reads what :func:`benchmarks.scale_cpu.measure` found: images per second of a core, by what is done."""
    with path.open(newline='') as file:
        return {row['what']: float(row['images_per_s']) for row in csv.DictReader(file)}


def all_reduce(size: float, gpus: int, network: Network = FAST) -> float:
    """Returns the seconds in which as many bytes of each GPU are summed over all of them.

    Each GPU sends and receives 2 (n - 1) / n of the bytes; a machine's network has to take those of one ring through
    all machines.
    """
    machines, inside = max(gpus // MACHINE, 1), min(gpus, MACHINE)
    bandwidth = min(NVLINK, network.bandwidth) if machines > 1 else NVLINK
    latency = CALL + 2 * ((inside - 1) * TREE_HOP + math.log2(machines) * network.tree_hop)
    return latency + 2 * (gpus - 1) / gpus * size / (REACHED * bandwidth)


def sync_norms(norms: Sequence[int], gpus: int, network: Network = FAST) -> float:
    """Returns the seconds that SyncBN waits in a step: each layer gathers 2 C + 1 numbers, and sums 2 C backwards."""
    machines = max(gpus // MACHINE, 1)
    bandwidth = min(NVLINK, network.bandwidth) if machines > 1 else NVLINK
    gather = CALL + (gpus - machines) * RING_HOP + (machines - 1) * network.ring_hop
    return sum(gather + 4 * (2 * channels + 1) * (gpus - 1) / (REACHED * bandwidth)
               + all_reduce(8 * channels, gpus, network) for channels in norms)


def waited(size: float, compute: float, gpus: int, network: Network = FAST, bucket: float = BUCKETS[0]) -> float:
    """Returns the seconds for which a step waits for its gradients, at most.

    The last bucket is full when the backward pass is over; the others are sent in it, as far as there is time.
    """
    buckets = [min(bucket, size - start) for start in range(0, math.ceil(size), int(bucket))]
    whole = sum(all_reduce(part, gpus, network) for part in buckets)
    return max(all_reduce(buckets[0], gpus, network), whole - BACKWARD * compute)


def trainings(size: str, rates: dict[str, float]) -> list[list[str]]:
    """Rows of the recipe over InfiniBand, where a GPU has one image with SyncBN in groups of a machine."""
    model, speed = read_model(size), read_speed(size)
    rows, first = [], 0.0
    for gpus in GPUS:
        images = BATCH // gpus
        compute = max(speed.launches, images * speed.image)
        gradients = waited(4 * model.gradients, compute, gpus)
        norms = sync_norms(model.norms, MACHINE) if images == 1 else 0
        loading = images / (model.workers * rates['training'])
        step = max(compute + gradients + norms, loading)
        share = VAL_IMAGES / gpus
        inference = max(share * speed.val_image, share / (model.workers * rates['validation']))
        scoring = VAL_IMAGES / rates['scoring']
        epochs = model.epochs * math.ceil(TRAIN_IMAGES / BATCH) * step / 3600
        validating = model.validations * (inference + scoring) / 3600
        first = first or (epochs + validating) * gpus
        rows.append([
            size.upper(), f'{gpus} x {images}', f'{1e3 * compute:.0f}', f'{1e3 * gradients:.1f}', f'{1e3 * norms:.1f}',
            f'{images / step / rates["training"]:.1f}', f'{MACHINE * 4 * images * COCO_BYTES / step / 1e6:.0f}',
            f'{inference:.1f} + {scoring:.0f}', f'{epochs:.1f} + {validating:.1f}',
            f'{100 * first / (gpus * (epochs + validating)):.0f} %'])
    return rows


def switches(size: str) -> list[str]:
    """Returns the row of what each switch changes in a step on 64 GPUs, and SyncBN's on 512."""
    model, speed = read_model(size), read_speed(size)
    compute, sent = max(speed.launches, BATCH // 64 * speed.image), 4 * model.gradients
    fast = [all_reduce(sent, 64), all_reduce(sent / 2, 64)]
    slow = [waited(sent, compute, 64, SLOW, BUCKETS[0]), waited(sent, compute, 64, SLOW, BUCKETS[1]),
            waited(sent / 2, compute, 64, SLOW, BUCKETS[1] / 2)]
    norms = [sync_norms(model.norms, 512), sync_norms(model.norms, MACHINE)]
    broadcast = sent / (REACHED * INFINIBAND) + model.tensors * LAUNCH
    return [size.upper(), f'{sent / 1e6:.1f}', _listed(fast, 2), _listed(slow, 0), str(len(model.norms)),
            _listed(norms, 1), f'{sent * (1 - 1 / 64) / 1e6:.0f}', f'{1e3 * broadcast:.1f}']


def _listed(seconds: Sequence[float], digits: int) -> str:
    return ', '.join(f'{1e3 * one:.{digits}f}' for one in seconds)


def tables(rates: dict[str, float], sizes: Sequence[str]) -> list[Table]:
    """Makes the tables of docs/distributed.md."""
    runs = Table(
        ('', 'GPUs x batch', 'GPU, ms', 'gradients, ms', 'SyncBN, ms', 'cores a GPU', 'read, MB/s a machine',
         'validation, s', 'training + validation, h', 'of linear'),
        [row for size in sizes for row in trainings(size, rates)], ('', ))
    options = Table(
        ('', 'gradients, MB', 'InfiniBand: float32, bfloat16, ms', 'Ethernet: 25 MiB, 5 MiB, with bfloat16, ms',
         'BatchNorms', 'SyncBN: all 512, groups of 8, ms', 'ZeRO saves, MB', 'ZeRO adds, ms'),
        [switches(size) for size in sizes], ('', ))
    return [runs, options]


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sizes', nargs='+', choices=['t', 'b', 'l'], default=['t', 'b', 'l'])
    parser.add_argument('--measure', action='store_true', help='measure the rates of one core first (minutes)')
    parser.add_argument('--images', type=int, default=400, help='for each rate that is measured')
    parser.add_argument('--csv', type=Path, default=RATES, help='the rates: read, or written after --measure')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    if args.measure:
        torch.set_num_threads(1)
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(Path(folder), args.images)
        write_csv(args.csv, with_environment(rows, torch.device('cpu')))
    print('\n\n'.join(table.markdown() for table in tables(read_rates(args.csv), args.sizes)))


if __name__ == '__main__':
    main()
