"""Times whole networks of Mamba YOLO and YOLOv8, interleaved in one process: ``python -m benchmarks.models``.

Backbone, neck and the head's convolutions on random images, without decoding and suppression. Latency and throughput
after ``mmmamba.deploy.fuse``; a training step is the forward pass, a mean square of the outputs as loss, the backward
pass and a step of SGD. On the CPU in float32; on CUDA inference in float16 and training under autocast to it.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.contenders import scan_inputs
from benchmarks.networks import MAMBA_YOLO, NETWORKS, build_network
from benchmarks.shapes import scans_of
from mmmamba.analysis.measure import Effort, Row, Run, Table, captured, interleaved, modes, with_environment, write_csv
from mmmamba.cli import device_named
from mmmamba.deploy import fuse, fuse_for_training
from mmmamba.ops import ss2d_scan

BASELINE = 'yolov8_s'
KINDS = ('latency', 'throughput', 'training')


class Precision(NamedTuple):
    """How a network is kept and run: the dtype of its weights, and that of autocast, None without."""

    name: str
    weights: torch.dtype
    autocast: torch.dtype | None = None

    def context(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, self.autocast, enabled=self.autocast is not None)


FLOAT32 = Precision('float32', torch.float32)
FLOAT16_WEIGHTS = Precision('float16 weights', torch.float16)
BFLOAT16_WEIGHTS = Precision('bfloat16 weights', torch.bfloat16)
FLOAT16_AUTOCAST = Precision('float16 autocast', torch.float32, torch.float16)
BFLOAT16_AUTOCAST = Precision('bfloat16 autocast', torch.float32, torch.bfloat16)


def images(batch: int, side: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.rand(batch, 3, side, side, device=device, dtype=dtype, generator=torch.Generator(device).manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def inference(name: str, batch: int, side: int, device: torch.device, precision: Precision | None = None) -> Run:
    """Makes a forward pass of a network that is ready for inference; None is float32, on CUDA float16."""
    if precision is None:
        precision = FLOAT16_WEIGHTS if device.type == 'cuda' else FLOAT32
    torch.manual_seed(0)
    network = fuse(build_network(name)).to(device, precision.weights)
    x = images(batch, side, device, precision.weights)

    def run() -> object:
        with torch.inference_mode(), precision.context(device):
            return network(x)

    return run


def scans_alone(size: str, batch: int, side: int, device: torch.device) -> Run:
    """Makes all scans of a forward pass of Mamba YOLO in sequence, their projections included, and nothing else."""
    cases = [list(scan_inputs(shape, batch, device, torch.float32).values())
             for shape, times in scans_of(size, side).items() for _ in range(times)]

    def run() -> None:
        with torch.inference_mode():
            for case in cases:
                ss2d_scan(*case)

    return run


def training_step(
    name: str, batch: int, side: int, device: torch.device, precision: Precision | None = None, fused: bool = False
) -> Run:
    """Makes a whole step, the scaling of the loss included where autocast is to float16.

    Args:
        name: One of ``NETWORKS``.
        batch: Images in a step.
        side: Of the images.
        device: Where to train.
        precision: None for float32, on CUDA for autocast to float16.
        fused: Whether ``mmmamba.deploy.fuse_for_training`` prepares the network.
    """
    if precision is None:
        precision = FLOAT16_AUTOCAST if device.type == 'cuda' else FLOAT32
    torch.manual_seed(0)
    network: nn.Module = build_network(name)
    if fused:
        network = fuse_for_training(network)
    network.to(device, precision.weights, memory_format=torch.channels_last)
    x = images(batch, side, device, precision.weights)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-4, momentum=0.937, nesterov=True)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.autocast == torch.float16)

    def run() -> None:
        with precision.context(device):
            outputs = network(x)
        loss = sum(output.float().square().mean() for output in outputs)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return run


def measure(
    kind: str, mode: str, names: Sequence[str], batch: int, side: int, device: torch.device, effort: Effort
) -> list[Row]:
    """Rows of one kind: each network, with Mamba YOLO's latency its scans alone, and the ratios to YOLOv8-S."""
    make = training_step if kind == 'training' else inference
    runs = {name: make(name, batch, side, device) for name in names}
    if kind == 'latency':
        runs.update({f'all scans of mamba-yolo_{size}': scans_alone(size, batch, side, device)
                     for size in MAMBA_YOLO if f'mamba-yolo_{size}' in names})
    if mode == 'graph':
        runs = {name: captured(run) for name, run in runs.items()}
    timings = interleaved(runs, device, effort)
    rows = []
    for name, timing in timings.items():
        row = {'kind': kind, 'mode': mode, 'network': name, 'batch': batch, 'side': side, **timing.columns(),
               'images_per_s': round(1e3 * batch / timing.median, 2)}
        if BASELINE in timings:
            row[f'over_{BASELINE}'] = round(timing.median / timings[BASELINE].median, 3)
        rows.append(row)
    return rows


def modes_of(kind: str, device: torch.device) -> tuple[str, ...]:
    """Graphs are for one image: of a batch the kernels take longer than the launches, and steps do not stand still."""
    return modes(device) if kind == 'latency' else ('eager',)


def default_batch(kind: str, device: torch.device) -> int:
    cpu, cuda = {'latency': (1, 1), 'throughput': (4, 32), 'training': (2, 16)}[kind]
    return cuda if device.type == 'cuda' else cpu


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', type=device_named, default='cpu')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=NETWORKS)
    parser.add_argument('--kinds', nargs='+', choices=KINDS, default=KINDS)
    parser.add_argument('--batch', type=int, help='default: 1 for latency; 32 (CPU: 4) for throughput; 16 (CPU: 2) '
                        'for training')
    parser.add_argument('--side', type=int, default=640, help='of the square images, a multiple of 32')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--seconds', type=float, default=40, help='for each kind and mode')
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    if args.side % 32 or (args.batch is not None and args.batch < 1):
        parser.error('--side must be a multiple of 32 and --batch positive')
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    rows = []
    for kind in args.kinds:
        batch = args.batch or default_batch(kind, args.device)
        for mode in modes_of(kind, args.device):
            rows += measure(kind, mode, args.networks, batch, args.side, args.device, Effort(args.seconds, least=3))
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, args.device))


if __name__ == '__main__':
    main()
