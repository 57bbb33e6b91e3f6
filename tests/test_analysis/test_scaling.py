from __future__ import annotations

import cv2
import pytest
from matplotlib.figure import Figure

from mmmamba.analysis.scaling import COLUMNS, draw_scaling, exponent_table, fits


def rows(config='t', pass_='forward', power=1.0, failed=()):
    empty = dict.fromkeys(COLUMNS, '')
    shared = dict(config=config, dtype='float32', device='cpu', threads='1', torch='2', **{'pass': pass_})
    for side in (100, 200, 400):
        if side in failed:
            yield {**empty, **shared, 'side': str(side), 'failure': 'out of memory | killed'}
            continue
        pixels = side**2
        # Of strings and numbers, as they come from a file and from a measurement.
        yield {**empty, **shared, 'side': str(side), 'memory_mib': pixels**power, 'linear_gflops': str(3 * pixels),
               'scan_gflops': pixels, 'median_ms': pixels**0.5, 'p20_ms': 0.9 * pixels**0.5,
               'p80_ms': str(1.2 * pixels**0.5), 'images_per_s': 1e3 / pixels**0.5}


def test_fits_each_quantity():
    found = fits(list(rows(power=1.5)))
    assert {name: fit.exponent for name, fit in found.items()} == pytest.approx(
        {'memory': 1.5, 'FLOPs': 1, 'latency': 0.5})
    assert fits(list(rows(failed=(100, 200, 400)))) == {'memory': None, 'FLOPs': None, 'latency': None}


def test_table_has_a_line_for_each_pass_and_names_failures():
    table = exponent_table([*rows(), *rows('d', 'training', 2, failed=(400,)), *rows('e', failed=(100, 200, 400))])
    assert table.splitlines()[2:] == [
        '| t | forward | float32 | 100–400 (3) | 1.000 ± 0.000 | 1.000 ± 0.000 | 0.500 ± 0.000 |  |',
        '| d | training | float32 | 100–200 (2) | 2.000 | 1.000 | 0.500 | 400: out of memory \\| killed |',
        '| e | forward | float32 | – | – | – | – | '
        '100: out of memory \\| killed; 200: out of memory \\| killed; 400: out of memory \\| killed |']


def test_picture_has_a_line_of_panels_for_each_pass(tmp_path):
    heights = []
    for index, passes in enumerate((('forward',), ('forward', 'training'))):
        out = tmp_path / str(index) / 'scaling.png'
        draw_scaling([row for pass_ in passes for row in (*rows('t', pass_), *rows('d', pass_, failed=(400,)))], out)
        picture = cv2.imread(str(out))
        heights.append(picture.shape[0])
        assert len({tuple(colour) for colour in picture.reshape(-1, 3)[::7]}) > 50
    assert heights[1] > 1.5 * heights[0]


def test_picture_has_the_flops_of_what_another_pass_measured(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, out, dpi: figures.append(self))
    measured = [*rows('t', failed=(100, 200, 400)), *rows('d', failed=(400, )), *rows('t', 'training', failed=(400, )),
                *rows('d', 'training', failed=(100, ))]
    draw_scaling(measured, tmp_path / 'scaling.png')
    flops = next(axis for axis in figures[0].axes if axis.get_title() == 'FLOPs')
    points = [container.lines[0].get_xdata().tolist() for container in flops.containers]
    assert points == [[100, 200], [100, 200, 400]]
    crosses = [line.get_xdata().tolist() for line in flops.lines if line.get_marker() == 'x']
    assert [list(sides) for sides in crosses] == [[400], []]


def test_picture_without_any_measurement(tmp_path):
    draw_scaling(list(rows(failed=(100, 200, 400))), tmp_path / 'scaling.png')
    assert cv2.imread(str(tmp_path / 'scaling.png')).min() < 50


def test_a_fit_to_fewer_points_than_sides_says_so():
    own = [{**row, 'memory_mib': -1.0} if row['side'] == '100' else row for row in rows()]
    assert '| 100–400 (3) | 1.000 (2 of them) | 1.000 ± 0.000 |' in exponent_table(own)
