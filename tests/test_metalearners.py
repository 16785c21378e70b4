"""Portfolios and the empirical Gaussian: against independent formulas, and on tables small enough to check by hand."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_space

from metahpo_jax.errors import BudgetError, DataError, SplitError
from metahpo_jax.metadata import Source
from metahpo_jax.metalearners.empirical_gaussian import SHRINKAGE, count_gaussian, posterior
from metahpo_jax.metalearners.forest_portfolio import Forests, forest_portfolio
from metahpo_jax.metalearners.portfolio import greedy_picks, imagined_picks
from metahpo_jax.spaces import Float, Space

REGRET = np.array([[0.0, 0.9, 0.5, 0.6], [0.9, 0.0, 0.5, 0.4], [0.8, 0.9, 0.2, 0.0]])


def test_greedy_picks_by_hand() -> None:
    # Means .567, .6, .4, .333: 3 first; with it the best left is .6 + .4 + 0: 0 saves .6, 1 saves .4, 2 saves .1.
    np.testing.assert_array_equal(greedy_picks(REGRET, 4), [3, 0, 1, 2])


@pytest.mark.parametrize("picks", [greedy_picks, imagined_picks], ids=lambda f: f.__name__)
def test_picks_are_distinct_and_bounded(picks) -> None:
    regret = np.random.default_rng(0).random((5, 30))
    assert len(set(picks(regret, 30).tolist())) == 30
    np.testing.assert_array_equal(picks(regret, 6), greedy_picks(regret, 6))
    for size in (0, 31):
        with pytest.raises(BudgetError, match="1 to 30"):
            picks(regret, size)


def test_the_empirical_posterior_is_that_of_a_multivariate_normal() -> None:
    """Against the textbook formula in float64, written with the full covariance matrix."""
    rng = np.random.default_rng(1)
    loss = rng.normal(size=(7, 12)) + rng.normal(size=12)
    covariance = np.cov(loss, rowvar=False)
    covariance = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.diag(np.diag(covariance))
    rows, told = np.array([4, 9, 1]), np.array([0.3, -1.0, 0.8])
    gain = covariance[:, rows] @ np.linalg.inv(covariance[np.ix_(rows, rows)])
    mean = loss.mean(0) + gain @ (told - loss.mean(0)[rows])
    variance = np.diag(covariance) - np.einsum("nk,kn->n", gain, covariance[rows])
    padded = jnp.asarray([*rows, -1, -1]), jnp.asarray([*told, 99.0, np.nan], jnp.float32)
    got = posterior(count_gaussian(loss), *padded, jnp.asarray([True] * 3 + [False] * 2))
    np.testing.assert_allclose(got[0], mean, atol=2e-4)
    np.testing.assert_allclose(got[1], np.maximum(variance, 0), atol=2e-4)


def test_one_task_has_no_covariance() -> None:
    with pytest.raises(DataError, match="at least 2"):
        count_gaussian(np.zeros((1, 3)))


def source(name: str, best: float, seed: int) -> Source:
    rng = np.random.default_rng(seed)
    u = rng.random((200, 2)).astype(np.float32)
    loss = ((u - best) ** 2).sum(1)
    return Source(name, u, loss, loss, np.zeros(0, np.float32))


def test_a_forest_portfolio_covers_what_its_training_tasks_like() -> None:
    space = Space(x=Float(0.0, 1.0), y=Float(0.0, 1.0))
    pool = np.random.default_rng(9).random((300, 2)).astype(np.float32)
    theta = forest_portfolio(Forests(space, [pool]), [source("low", 0.2, 0), source("high", 0.8, 1)], pool, 5)
    distance = np.linalg.norm(np.asarray(theta.u)[:, None] - np.array([0.2, 0.8])[None, :, None], axis=2).min(0)
    assert (distance < 0.1).all(), "both optima are visited"
    assert all((row == pool).all(1).any() for row in np.asarray(theta.u)), "each is a configuration of the pool"


def test_a_forest_portfolio_needs_training_tasks() -> None:
    with pytest.raises(SplitError, match="at least one training task"):
        pool = np.zeros((3, 4), np.float32)
        forest_portfolio(Forests(tiny_space(), [pool]), [], pool, 2)
