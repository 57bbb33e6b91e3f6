"""Where the time of a network's forward pass goes, by operator or kernel: ``python -m benchmarks.breakdown``."""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.models import inference
from benchmarks.networks import NETWORKS
from mmmamba.analysis.measure import WARM_UP, Row, Table, with_environment, write_csv
from mmmamba.cli import device_named


def measure(name: str, side: int, device: torch.device, passes: int, most: int) -> list[Row]:
    """Measures the dearest operators (on CUDA: kernels) of a pass over one image, each without those that it calls.

    Args:
        name: One of ``NETWORKS``.
        side: Of the square image.
        device: Where.
        passes: To average over. The profiler slows small operators: read shares, and take times from ``models``.
        most: Rows.
    """
    run = inference(name, 1, side, device)
    for _ in range(WARM_UP):
        run()
    cuda = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        for _ in range(passes):
            run()
    here = DeviceType.CUDA if cuda else DeviceType.CPU
    events = [event for event in profiler.key_averages() if event.device_type == here]
    microseconds = {event.key: event.self_device_time_total if cuda else event.self_cpu_time_total for event in events}
    calls = {event.key: event.count for event in events}
    total = sum(microseconds.values())
    dearest = sorted(microseconds, key=lambda key: -microseconds[key])[:most]
    return [{
        'network': name, 'side': side, 'operator': key[:80], 'calls': calls[key] // passes,
        'ms': round(microseconds[key] / 1e3 / passes, 4), 'share': round(microseconds[key] / total, 4)
    } for key in dearest]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', type=device_named, default='cpu')
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=['yolov8_s', 'mamba-yolo_t'])
    parser.add_argument('--side', type=int, default=640, help='of the square image, a multiple of 32')
    parser.add_argument('--passes', type=int, default=10)
    parser.add_argument('--rows', type=int, default=15, help='operators of each network')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads(), help='of the CPU')
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    if args.side % 32 or min(args.passes, args.rows, args.threads) < 1:
        parser.error('--side must be a multiple of 32, and --passes, --rows and --threads positive')
    torch.set_num_threads(args.threads)
    rows = [row for name in args.networks
            for row in measure(name, args.side, args.device, args.passes, args.rows)]
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, args.device))


if __name__ == '__main__':
    main()
