"""Times exported detectors in other runtimes beside PyTorch, interleaved: ``python -m benchmarks.runtimes``.

Mamba YOLO and YOLOv8 with random weights, one image, from the input tensor to boxes and scores of all cells,
without NMS, on the CPU. PyTorch runs what ``mmmamba.deploy.fuse`` returns. Each file is compared with PyTorch first,
as ``tools/deployment/export.py`` does.
"""
from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn

from mmmamba.analysis.measure import Effort, Row, Run, Table, interleaved, with_environment, write_csv
from mmmamba.deploy import fuse
from mmmamba.deploy.export import ExportOptions, Preprocessing, exported_network, make_exporter
from mmmamba.deploy.export.exporter import as_input, composed_image
from mmmamba.deploy.export.network import BoxNetwork
from mmmamba.deploy.export.runtime import open_file

from mmdet.registry import MODELS  # isort: skip  (after mmmamba, which supplies mmcv's operators)

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
NETWORKS = MappingProxyType({
    'mamba-yolo_t': 'mamba_yolo/mamba-yolo_t_8xb64-300e_coco.py',
    'yolov8_n': 'yolov8/yolov8_n_8xb64-300e_coco.py',
    'yolov8_s': 'yolov8/yolov8_s_8xb64-300e_coco.py',
})
BASELINE = 'yolov8_s'
"""In PyTorch."""


class Way(NamedTuple):
    """A way to run a network: a format of the exporters, or PyTorch."""

    format: str
    portable: bool = False
    precision: str = 'f32'
    int8: bool = False


WAYS: Mapping[str, Way | None] = MappingProxyType({
    'PyTorch': None,
    'ONNX Runtime': Way('onnx'),
    'ONNX Runtime, portable': Way('onnx', portable=True),
    'OpenVINO': Way('openvino'),
    'OpenVINO, bf16': Way('openvino', precision='bf16'),
    'OpenVINO, portable': Way('openvino', portable=True),
    'OpenVINO, int8': Way('openvino', int8=True),
    'torch.export': Way('torch-export'),
    'AOTInductor': Way('aoti'),
})


def build(name: str) -> nn.Module:
    init_default_scope('mmdet')
    torch.manual_seed(0)
    return MODELS.build(Config.fromfile(CONFIGS / NETWORKS[name]).model).eval()


def in_pytorch(detector: nn.Module, side: int) -> Run:
    network = BoxNetwork(fuse(detector)).eval()
    images = torch.from_numpy(as_input([composed_image(side, side)])).contiguous(memory_format=torch.channels_last)

    def run() -> object:
        with torch.inference_mode():
            return network(images)

    return run


def in_a_runtime(file: Path, side: int, threads: int, precision: str) -> Run:
    session, images = open_file(file, threads, precision), as_input([composed_image(side, side)])
    return lambda: session.run(images)


def export(detector: nn.Module, way: Way, side: int, folder: Path) -> Path:
    """Exports once for all precisions."""
    exporter = make_exporter(way.format)
    out = folder / f'{way.format}{"-portable" if way.portable else ""}{exporter.suffix}'
    if not out.exists():
        exporter.export(exported_network(detector), out, ExportOptions((side, side), portable=way.portable),
                        Preprocessing(114, tuple(map(str, range(80)))))
    if way.int8:
        from mmmamba.deploy.export.quantize import quantize  # needs NNCF

        float32, out = out, folder / f'int8{exporter.suffix}'
        quantize(float32, out, [composed_image(side, side, seed) for seed in range(4)])
    return out


def runs_of(name: str, ways: Sequence[str], side: int, threads: int, folder: Path) -> dict[tuple[str, str], Run]:
    """Makes the network in each way; what runs YOLOv8, which has no scans, is one way with and without portable."""
    detector = build(name)
    folder.mkdir()
    found: dict[tuple[str, str], Run] = {}
    for label in ways:
        way = WAYS[label]
        if way is None:
            found[name, label] = in_pytorch(detector, side)
        elif not (way.portable and name.startswith('yolov8')):
            found[name, label] = in_a_runtime(export(detector, way, side, folder), side, threads, way.precision)
    return found


def measure(names: Sequence[str], ways: Sequence[str], side: int, threads: int, effort: Effort) -> list[Row]:
    """Rows of each network and way, and their ratios to the same network and to YOLOv8-S in PyTorch."""
    runs: dict[tuple[str, str], Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            runs.update(runs_of(name, ways, side, threads, Path(folder, name)))
        timings = interleaved(runs, torch.device('cpu'), effort)
    rows = []
    for (name, way), timing in timings.items():
        row: Row = {'network': name, 'runtime': way, 'side': side, **timing.columns()}
        for column, other in (('over_pytorch', (name, 'PyTorch')), (f'over_{BASELINE}', (BASELINE, 'PyTorch'))):
            if other in timings:
                row[column] = round(timing.median / timings[other].median, 3)
        rows.append(row)
    return rows


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draws a bar for each row, its time over YOLOv8-S's in PyTorch, logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    rows = sorted(rows, key=lambda row: (row['network'], -float(row['median_ms'])))
    figure = Figure(figsize=(8, 0.6 + 0.34 * len(rows)), layout='constrained')
    axis = figure.subplots()
    networks = list(dict.fromkeys(row['network'] for row in rows))
    bars = axis.barh(range(len(rows)), [float(row[f'over_{BASELINE}']) for row in rows],
                     color=[f'C{networks.index(row["network"])}' for row in rows])
    axis.bar_label(bars, [f'{float(row["median_ms"]):.0f} ms' for row in rows], padding=3, fontsize=8)
    axis.set_yticks(range(len(rows)), [f'{row["network"]}, {row["runtime"]}' for row in rows], fontsize=8)
    axis.set_xscale('log')
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter('{x:g}')
    axis.xaxis.set_minor_formatter('')
    axis.margins(x=0.15)
    axis.axvline(1, color='black', linewidth=0.8)
    axis.set_xlabel(f'time over {BASELINE} in PyTorch')
    figure.savefig(path, dpi=130)


def parse_args(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument('--ways', nargs='+', choices=WAYS, default=list(WAYS),
                        help='default: all, which needs NNCF and a C++ compiler, and takes ten minutes')
    parser.add_argument('--side', type=int, default=640, help='of the square image, a multiple of 32')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--seconds', type=float, default=60)
    parser.add_argument('--csv', type=Path, help='file to write')
    parser.add_argument('--plot', type=Path, help='picture to draw (needs matplotlib)')
    args = parser.parse_args(arguments)
    if args.side % 32 or args.side < 32:
        parser.error('--side must be a multiple of 32')
    if args.plot and (BASELINE not in args.networks or 'PyTorch' not in args.ways):
        parser.error(f'--plot draws times over {BASELINE} in PyTorch: measure it too')
    return args


def main(arguments: Sequence[str] | None = None) -> None:
    args = parse_args(arguments)
    torch.set_num_threads(args.threads)
    rows = measure(args.networks, args.ways, args.side, args.threads, Effort(args.seconds, least=5))
    print(Table.of_records(rows).text())
    if args.csv:
        write_csv(args.csv, with_environment(rows, torch.device('cpu')))
    if args.plot:
        plot(rows, args.plot)


if __name__ == '__main__':
    main()
