from __future__ import annotations

import math

import numpy as np
import pytest

from mmmamba.analysis.measure import fit_power_law

PIXELS = [side**2 for side in (320, 448, 640, 896, 1280, 1600, 2048)]


@pytest.mark.parametrize('power', [0.5, 1, 2])
def test_recovers_a_power_law(power):
    fit = fit_power_law(PIXELS, [3e-4 * pixels**power for pixels in PIXELS])
    assert fit.exponent == pytest.approx(power) and fit.factor == pytest.approx(3e-4)
    assert fit.error < 1e-6
    assert fit(10_000) == pytest.approx(3e-4 * 10_000**power)


def test_error_is_the_spread_of_the_exponent_under_noise():
    rng = np.random.default_rng(0)
    fits = [fit_power_law(PIXELS, np.array(PIXELS)**1.2 * np.exp(0.05 * rng.standard_normal(len(PIXELS))))
            for _ in range(2000)]
    exponents = np.array([fit.exponent for fit in fits])
    assert exponents.mean() == pytest.approx(1.2, abs=0.003)
    # Of a variance, because the root of an unbiased estimate is biased.
    assert math.sqrt(np.mean([fit.error**2 for fit in fits])) == pytest.approx(exponents.std(), rel=0.05)


def test_a_constant_part_shows_as_an_error():
    fit = fit_power_law(PIXELS, [pixels + 5e5 for pixels in PIXELS])
    assert 0.4 < fit.exponent < 0.9 and fit.error > 0.02


def test_two_points_have_no_error_and_one_has_no_law():
    two = fit_power_law([10, 1000], [1, 100])
    assert two.exponent == pytest.approx(1) and math.isnan(two.error) and str(two) == '1.000'
    assert fit_power_law([10], [1]) is None
    assert fit_power_law([10, 10], [1, 2]) is None
    assert fit_power_law([], []) is None


def test_what_is_not_positive_is_left_out():
    assert fit_power_law([10, 100, 1000], [0, 10, 100]) == fit_power_law([100, 1000], [10, 100])._replace(
        error=pytest.approx(math.nan, nan_ok=True))
