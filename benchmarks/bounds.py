"""How far each operator is from what the CPU could do: ``python -m benchmarks.bounds``.

Runs the settings of ``benchmarks.against_cnn`` and, for each operator of a network, adds up time, products and bytes.
Its bound is the time that its products take at the rate of PyTorch's matrix product in the same type, or its bytes at
that of a copy in cache, whichever is longer; both rates are measured in the same run. A scan's products are float32 in
any case. Operators without a formula in PyTorch's counter of FLOPs count with their bytes alone.
"""
from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.against_cnn import FLAGS, PAIR, SETTINGS
from benchmarks.networks import NETWORKS
from mmmamba.analysis.measure import Row, Table, cpu_flags, with_environment, write_csv
from mmmamba.ops.scan.fused import TENSORS, ScanInputs, token_counts

PRODUCTS_OF_A_STEP = {'mmmamba.native_scan': 7, 'mmmamba.native_scan_backward': 14}
"""Products, fused multiply-adds among them, of one state in one step of a scan: ``kernel.c`` with AVX-512."""
WARM_UP = 3


class Work(NamedTuple):
    """What one call of an operator does: products and the dtype that they are in, bytes read and written."""

    products: float
    dtype: torch.dtype
    bytes: float


class Rates(NamedTuple):
    """What the machine does in a second: products by dtype, and bytes of a copy in cache, read and written."""

    products: dict[torch.dtype, float]
    bytes: float

    def seconds(self, work: Work) -> float:
        return max(work.products / self.products.get(work.dtype, float('inf')), work.bytes / self.bytes)


def rates(size: int = 1024) -> Rates:
    """Measures the rates, each as the best of many runs, with matrices of so many rows."""
    matrix, x = torch.rand(size, size), torch.rand(1 << 20)
    products = {dtype: size**3 / _best(torch.mm, matrix.to(dtype), matrix.to(dtype))
                for dtype in (torch.float32, torch.bfloat16)}
    return Rates(products, 2 * x.nbytes / _best(torch.empty_like(x).copy_, x))


def _best(function: Callable[..., object], *arguments: Tensor) -> float:
    """Returns the least seconds of many calls."""
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        function(*arguments)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Recorder(TorchDispatchMode):
    """Times every operator, and counts its work, while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, list[tuple[float, Work]]] = defaultdict(list)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        start = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        seconds = time.perf_counter() - start
        self.calls[str(func.overloadpacket)].append((seconds, work_of(func, args, kwargs or {}, result)))
        return result


def work_of(func: Any, args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> Work:
    """Returns the work of a call; views touch no bytes."""
    outputs = [tensor for tensor in tree_leaves(result) if isinstance(tensor, Tensor)]
    inputs = [tensor for tensor in tree_leaves((args, kwargs)) if isinstance(tensor, Tensor)]
    dtype = outputs[0].dtype if outputs else torch.float32
    # What shares memory with an input is that input, or written over it.
    storages = {tensor.untyped_storage().data_ptr(): tensor.nbytes for tensor in inputs}
    new = sum(tensor.nbytes for tensor in outputs if tensor.untyped_storage().data_ptr() not in storages)
    touched = new + sum(storages.values()) if new or func._schema.is_mutable else 0
    name = str(func.overloadpacket)
    if name in PRODUCTS_OF_A_STEP:
        return Work(PRODUCTS_OF_A_STEP[name] * _steps(_scan_inputs(name, args)), torch.float32, touched)
    if name in ('aten.conv2d', 'aten.linear'):  # which run as such in inference mode
        return Work(result.numel() * args[1][0].numel(), dtype, touched)
    if func.overloadpacket not in flop_registry:
        return Work(0, dtype, touched)
    return Work(flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) / 2, dtype, touched)


def _scan_inputs(name: str, args: Sequence[Any]) -> ScanInputs:
    if name.endswith('backward'):  # the gradients come first, and what the forward pass kept after the tensors
        args = [*args[2:2 + TENSORS], *args[3 + TENSORS:]]
    return ScanInputs(*args[:len(ScanInputs._fields)])


def _steps(scan: ScanInputs) -> int:
    """Returns how many states a scan updates, each as often as it does."""
    tokens = sum(token_counts(scan.directions, scan.x.shape[1], scan.width))
    return scan.x.shape[0] * tokens * scan.A.shape[1] * scan.A.shape[2]


def measure(network: str, setting: str, passes: int, at: Rates) -> list[Row]:
    """Returns a row for each operator of a network, the dearest first, and one for all of them.

    Args:
        network: One of ``NETWORKS``.
        setting: One of ``SETTINGS``.
        passes: To take the median of, operator by operator.
        at: Of the machine.
    """
    run = SETTINGS[setting].run(network)
    for _ in range(WARM_UP):
        run()
    recorder = Recorder()
    with recorder:
        for _ in range(passes):
            run()
    rows: list[Row] = []
    for name, calls in recorder.calls.items():
        each = len(calls) // passes
        seconds = median(sum(second for second, _ in calls[i * each:(i + 1) * each]) for i in range(passes))
        works = [work for _, work in calls[:each]]
        rows.append(_row(network, setting, name, each, seconds, works, sum(map(at.seconds, works))))
    rows.sort(key=lambda row: -row['ms'])
    total = {key: round(sum(row[key] for row in rows), 3) for key in ('calls', 'ms', 'gproducts', 'mib', 'bound_ms')}
    everything = {'network': network, 'setting': setting, 'operator': 'all', **total}
    everything['over_bound'] = round(total['ms'] / total['bound_ms'], 2)
    return [everything, *rows]


def _row(network: str, setting: str, name: str, calls: int, seconds: float, works: Sequence[Work],
         bound: float) -> Row:
    return {
        'network': network, 'setting': setting, 'operator': name, 'calls': calls, 'ms': round(1e3 * seconds, 3),
        'gproducts': round(sum(work.products for work in works) / 1e9, 3),
        'mib': round(sum(work.bytes for work in works) / 2**20, 1), 'bound_ms': round(1e3 * bound, 3),
        'over_bound': round(seconds / bound, 2) if bound else '',
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=PAIR, metavar='NETWORK')
    parser.add_argument('--settings', nargs='+', choices=SETTINGS, default=['inference', 'inference-bf16', 'training'])
    parser.add_argument('--passes', type=int, default=10)
    parser.add_argument('--rows', type=int, default=10, help='operators of each network')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--csv', type=Path, help='file to write')
    args = parser.parse_args(arguments)
    if min(args.passes, args.rows, args.threads) < 1:
        parser.error('--passes, --rows and --threads must be positive')
    torch.set_num_threads(args.threads)
    at = rates()
    rates_of_run = {f'gproducts_per_s_{str(dtype)[6:]}': round(rate / 1e9, 1) for dtype, rate in at.products.items()}
    rates_of_run['gib_per_s'] = round(at.bytes / 2**30, 1)
    rows = [row for setting in args.settings for network in args.networks
            for row in measure(network, setting, args.passes, at)[:args.rows + 1]]
    print(' '.join(f'{name}: {rate}' for name, rate in rates_of_run.items()))
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, [{**row, **rates_of_run, 'cpu_flags': cpu_flags(FLAGS)}
                             for row in with_environment(rows, torch.device('cpu'))])


if __name__ == '__main__':
    main()
