"""The backends of the two-dimensional scan, in order of preference."""
from mmmamba.ops.ss2d_scan import reference, torch_backend

BACKENDS = (torch_backend.BACKEND, reference.BACKEND)
