"""State-space scans. This package needs PyTorch and nothing else, so that it can be used alone."""
from mmmamba.ops.selective_scan import selective_scan
from mmmamba.ops.ss2d_scan import ss2d_scan

__all__ = ['selective_scan', 'ss2d_scan']
