"""The backends of the selective scan, in order of preference."""
from mmmamba.ops.selective_scan import reference, torch_backend

BACKENDS = (torch_backend.BACKEND, reference.BACKEND)
