"""The native CPU kernel of the ``cpu`` backends: plain C with a plain C interface, loaded with ctypes."""
