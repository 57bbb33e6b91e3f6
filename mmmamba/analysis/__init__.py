"""The laboratory: what models cost, what they see, and how they compare.

:mod:`mmmamba.analysis.measure` needs PyTorch alone; where mmdet and mmcv are installed, detectors can be measured too.
"""
from importlib.util import find_spec

from mmmamba.analysis.measure import Cost, ModelCost, count_flops

__all__ = ['Cost', 'ModelCost', 'count_flops']

if find_spec('mmdet') and find_spec('mmcv'):
    from mmmamba.analysis.detector import build_detector, count_detector, measure_latency, model_config
    from mmmamba.analysis.model_table import model_name, table_row
    from mmmamba.analysis.published import PUBLISHED

    __all__ += ['PUBLISHED', 'build_detector', 'count_detector', 'measure_latency', 'model_config', 'model_name',
                'table_row']
