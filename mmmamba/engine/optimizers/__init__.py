"""Optimizers; :mod:`mmmamba.engine` imports them all."""
