"""State-space scans. This package needs PyTorch alone, and can be used alone."""
from mmmamba.ops.scan.selective_scan import selective_scan
from mmmamba.ops.scan.ss2d_scan import ss2d_scan

__all__ = ['selective_scan', 'ss2d_scan']
