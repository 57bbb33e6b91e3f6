"""How a cost grows: the exponent of a power law, and how well it is known."""
from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class PowerLaw(NamedTuple):
    """values ≈ factor · sizes^exponent.

    Attributes:
        exponent: 1 is linear, 2 quadratic.
        error: Standard error of the exponent: s / sqrt(Σ(x - x̄)²) with s² = Σ residual² / (n - 2), x and the residuals
            being natural logarithms. It tells how far the points lie off one power law, be it by noise or because the
            cost is none (a constant part and a growing one). NaN for two points, which always lie on one.
        factor: In the values' unit.
        points: How many it was fitted to.
    """

    exponent: float
    error: float
    factor: float
    points: int

    def __call__(self, size: float) -> float:
        return self.factor * size**self.exponent

    def __str__(self) -> str:
        return f'{self.exponent:.3f}' + ('' if math.isnan(self.error) else f' ± {self.error:.3f}')


def fit_power_law(sizes: Sequence[float], values: Sequence[float]) -> PowerLaw | None:
    """Fits by least squares of the logarithms, all points with the same weight.

    Args:
        sizes: Positive.
        values: As many; those that are not positive, which no power law has, are left out.

    Returns:
        The fit, or None if fewer than two different sizes are left.
    """
    points = [(math.log(size), math.log(value)) for size, value in zip(sizes, values) if value > 0]
    if len({x for x, _ in points}) < 2:
        return None
    x_mean, y_mean = (statistics.fmean(column) for column in zip(*points))
    spread = math.fsum((x - x_mean)**2 for x, _ in points)
    slope = math.fsum((x - x_mean) * (y - y_mean) for x, y in points) / spread
    offset = y_mean - slope * x_mean
    error = math.nan
    if len(points) > 2:
        residual = math.fsum((y - offset - slope * x)**2 for x, y in points)
        error = math.sqrt(residual / (len(points) - 2) / spread)
    return PowerLaw(slope, error, math.exp(offset), len(points))
