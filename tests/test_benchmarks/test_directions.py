"""The benchmark of directions on its smallest map."""
from __future__ import annotations

import csv

from benchmarks import directions


def test_writes_rows(tmp_path, capsys):
    path = tmp_path / 'rows.csv'
    directions.main(['--threads', '1', '--seconds', '0', '--shapes', '1', '--csv', str(path)])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row['directions'] for row in rows] == 2 * list(directions.PATTERNS)
    assert all(float(row['over_cross']) > 0 and float(row['median_ms']) > 0 for row in rows)
    assert {row['over_cross'] for row in rows if row['directions'] == 'cross'} == {'1.0'}
    assert 'over_cross' in capsys.readouterr().out
