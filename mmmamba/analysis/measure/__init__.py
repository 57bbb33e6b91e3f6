"""The instruments of the laboratory: a stopwatch, a memory meter, a FLOP counter, a fit, records and tables.

They need PyTorch alone, so that a machine without OpenMMLab can measure the scans and layers.
"""
from mmmamba.analysis.measure.flops import Cost, ModelCost, count_flops, count_run
from mmmamba.analysis.measure.memory import MIB, PeakMemory, available_memory, limit_memory, peak_memory
from mmmamba.analysis.measure.power_law import PowerLaw, fit_power_law
from mmmamba.analysis.measure.records import (
    ENVIRONMENT,
    Row,
    attempted,
    cpu_flags,
    environment,
    failure_line,
    read_csv,
    with_environment,
    write_csv,
)
from mmmamba.analysis.measure.stopwatch import (
    WARM_UP,
    Effort,
    Run,
    Timing,
    captured,
    interleaved,
    modes,
)
from mmmamba.analysis.measure.tables import Table

__all__ = [
    'ENVIRONMENT', 'MIB', 'WARM_UP', 'Cost', 'Effort', 'ModelCost', 'PeakMemory', 'PowerLaw', 'Row', 'Run', 'Table',
    'Timing', 'attempted', 'available_memory', 'captured', 'count_flops', 'count_run', 'cpu_flags', 'environment',
    'failure_line', 'fit_power_law', 'interleaved', 'limit_memory', 'modes', 'peak_memory', 'read_csv',
    'with_environment', 'write_csv',
]
