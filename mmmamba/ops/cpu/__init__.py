"""The native CPU kernel behind the ``cpu`` backends: plain C with a plain C interface, loaded with ctypes."""
