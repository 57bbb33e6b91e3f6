"""The few lines of a suite's rows that the rest is there to explain."""
from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.records import Row
from benchmarks.scan import PASSES


def summarise(rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Ranges over all fused scans, each network's latency, a block's memory; what was not measured is left out.

    Args:
        rows: Of the files ``scan``, ``networks`` and ``blocks``.
    """
    lines = []
    fused = [row for row in rows.get('scan', ()) if not row['unfused'] and 'height' in row and 'failure' not in row]
    for backend, mode, dtype in dict.fromkeys((row['backend'], row['mode'], row['dtype']) for row in fused):
        for kind in PASSES:
            own = [row for row in fused if (row['backend'], row['mode'], row['dtype'], row['pass'])
                   == (backend, mode, dtype, kind)]
            lines += [f'{backend}, {mode}, {dtype}, {kind}: {column} {min(values):g} to {max(values):g}'
                      for column in ('unfused_over_this', 'this_over_bound')
                      if (values := [row[column] for row in own if column in row])]
    lines += [f'{row["network"]}, {row["kind"]}, {row["mode"]}: {row["median_ms"]:g} ms'
              for row in rows.get('networks', ()) if row['kind'] == 'latency']
    lines += [f'{row["what"]}, {row["backend"]}: {row["of_unfused"]:g} of the unfused memory'
              for row in rows.get('blocks', ()) if 'of_unfused' in row]
    lines += [f'{row["what"]}, {row["backend"]}: time {row["median_ms"]:g}, memory {row["peak_mib"]:g}'
              for row in rows.get('blocks', ()) if row['what'].startswith('exponent')]
    return lines
