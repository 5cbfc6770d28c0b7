"""The interval of a difference: right on paper, repeatable, and as wide as it should be."""

import numpy as np
import pytest

from evaluation.comparison import paired_difference


def test_a_constant_gain_has_no_width() -> None:
    baseline = np.array([0.25, 0.0, 0.75, 0.5])
    assert paired_difference(baseline, baseline + 0.25) == pytest.approx((0.25, 0.25, 0.25))


def test_it_agrees_with_the_normal_interval() -> None:
    generator = np.random.default_rng(1)
    baseline = generator.random(2000)
    tuned = baseline + generator.normal(0.05, 0.3, size=2000)
    found = paired_difference(baseline, tuned)
    differences = tuned - baseline
    half = 1.96 * differences.std() / np.sqrt(2000)
    assert found.mean == pytest.approx(differences.mean())
    assert found.low == pytest.approx(differences.mean() - half, abs=0.001)
    assert found.high == pytest.approx(differences.mean() + half, abs=0.001)


def test_it_is_repeatable_and_antisymmetric() -> None:
    generator = np.random.default_rng(2)
    one, other = generator.random((2, 50))
    found = paired_difference(one, other)
    assert found == paired_difference(one, other)
    assert paired_difference(other, one) == pytest.approx((-found.mean, -found.high, -found.low))


def test_it_reads_well() -> None:
    assert str(paired_difference(np.zeros(3), np.full(3, 0.5))) == "+0.500 [+0.500, +0.500]"
