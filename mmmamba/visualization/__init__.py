"""Drawing that several parts share; needs matplotlib, which comes with ``mmmamba[demo]``."""
