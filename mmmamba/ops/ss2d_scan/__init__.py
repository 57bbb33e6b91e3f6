"""The fused two-dimensional scan of visual Mambas: see README.md in this folder for its equations and gradients."""
from mmmamba.ops.ss2d_scan.interface import ss2d_scan

__all__ = ['ss2d_scan']
