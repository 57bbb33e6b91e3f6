"""Hooks; :mod:`mmmamba.engine` imports them all."""
