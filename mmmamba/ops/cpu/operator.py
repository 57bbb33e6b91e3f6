"""The native kernel's scan, registered with PyTorch as ``mmmamba::native_scan``."""
from mmmamba.ops import fused_scan
from mmmamba.ops.cpu import scan

native_scan = fused_scan.register('native_scan', scan.forward, scan.backward, scan.states_size)
