"""Comparisons of detectors that were trained and tested under the same conditions."""
