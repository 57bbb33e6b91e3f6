"""Schedules; :mod:`mmmamba.engine` imports them all."""
