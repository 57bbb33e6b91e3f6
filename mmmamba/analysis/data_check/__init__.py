"""A doctor for data sets: what training would refuse, replace or leave out, and what makes its AP mean little."""
from mmmamba.analysis.data_check.check import CheckedData, check_data
from mmmamba.analysis.data_check.findings import DataReport, Finding

__all__ = ['CheckedData', 'DataReport', 'Finding', 'check_data']
