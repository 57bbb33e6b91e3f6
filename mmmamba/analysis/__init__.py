"""What models cost."""
from mmmamba.analysis.detector import build_detector, model_config
from mmmamba.analysis.flops import Cost, ModelCost, count_detector, count_flops
from mmmamba.analysis.latency import Latency, measure_latency
from mmmamba.analysis.model_table import PUBLISHED_SHAPE, Row, model_name, table_row
from mmmamba.analysis.published import PUBLISHED, PUBLISHED_ONLY, Published

__all__ = [
    'PUBLISHED', 'PUBLISHED_ONLY', 'PUBLISHED_SHAPE', 'Cost', 'Latency', 'ModelCost', 'Published', 'Row',
    'build_detector', 'count_detector', 'count_flops', 'measure_latency', 'model_config', 'model_name', 'table_row',
]
