"""The selective scan of Mamba: see README.md in this folder for its equations and gradients."""
from mmmamba.ops.selective_scan.interface import selective_scan

__all__ = ['selective_scan']
