"""How a cost grows: the exponent of a power law, and how well it is known."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class PowerLaw(NamedTuple):
    """values ≈ factor · sizes^exponent.

    Attributes:
        exponent: 1 is linear, 2 quadratic.
        error: Standard error of the exponent: s / sqrt(Σ(x - x̄)²) with s² = Σ residual² / (n - 2), x and the residuals
            being natural logarithms. It tells how far the points lie off one power law, be it by noise or because the
            cost is none (a constant part beside a growing one). NaN for two points, which always lie on one.
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
    """Least squares of the logarithms, all points with the same weight.

    Args:
        sizes: Positive.
        values: As many; those that are not positive, which no power law has, are left out.

    Returns:
        The fit, or None where fewer than two different sizes are left.
    """
    points = [(size, value) for size, value in zip(sizes, values) if value > 0]
    if len({size for size, _ in points}) < 2:
        return None
    x, y = np.log(np.array(points, dtype=float)).T
    if len(points) == 2:
        slope, offset = np.polyfit(x, y, 1)
        return PowerLaw(float(slope), math.nan, math.exp(offset), len(points))
    (slope, offset), covariance = np.polyfit(x, y, 1, cov=True)
    return PowerLaw(float(slope), math.sqrt(covariance[0, 0]), math.exp(offset), len(points))
