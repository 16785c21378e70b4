"""A warm start helps where the source is like the target, and costs one trial, or nothing, where it misleads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax import driver
from metahpo_jax.base import no_candidates
from metahpo_jax.errors import ConfigError
from metahpo_jax.hypergrad import Inner, Theta, gradient_descent, regressor, reverse
from metahpo_jax.hypergrad.inner import episode
from metahpo_jax.metalearners import warm_start, warm_weights
from metahpo_jax.objectives import user_function
from metahpo_jax.proposers import PortfolioTheta, sobol
from metahpo_jax.spaces import Float, Space

SPACE = Space(x=Float(0.0, 1.0), y=Float(0.0, 1.0))
TUNED = PortfolioTheta(jnp.asarray([[0.3, 0.6], [0.31, 0.61], [0.29, 0.59]], jnp.float32))


def tried(objective, *, guard: bool, steps: int = 6) -> np.ndarray:
    """Configurations `[steps, 2]` that a warm-started search tries."""
    proposer = warm_start(TUNED, SPACE, sobol(SPACE), guard=guard)
    context, none = SPACE.context(budget=steps), no_candidates(2)
    history = driver.search_on_host(
        jax.random.key(0), proposer, user_function(objective, SPACE), context, none, steps=steps
    )
    return np.asarray(history.u)[:steps]


def is_tuned(u: np.ndarray) -> list[int]:
    """Which of `TUNED` each trial is, -1 for none."""
    near = np.abs(u[:, None] - np.asarray(TUNED.u)).max(-1) < 1e-6
    return np.where(near.any(1), near.argmax(1), -1).tolist()


def like(config):
    return abs(config["x"] - 0.3) + abs(config["y"] - 0.6)


@pytest.mark.parametrize(
    ("objective", "guard", "expected"),
    [
        (like, False, [0, 1, 2, -1, -1, -1]),
        (like, True, [0, -1, 1, 2, -1, -1]),  # the second trial is the search's own; then the source goes on
        (lambda config: -like(config), True, [0, -1, -1, -1, -1, -1]),
        (lambda config: float("nan") if like(config) < 0.1 else 1.0, True, [0, -1, -1, -1, -1, -1]),
        (lambda config: 1.0, True, [0, -1, -1, -1, -1, -1]),  # a tie is no reason to go on
    ],
    ids=["unguarded", "like", "negated", "diverging", "flat"],
)
def test_the_first_two_trials_decide_about_the_source(objective, guard, expected):
    assert is_tuned(tried(objective, guard=guard)) == expected


def test_without_both_results_trials_are_the_searchs_own():
    proposer = warm_start(TUNED, SPACE, sobol(SPACE))
    run = driver.start(jax.random.key(0), proposer, SPACE.context(budget=4), 8)
    proposals = []
    for _ in range(3):  # nothing is told in between
        proposal, run = driver.ask(jax.random.key(0), proposer, run, no_candidates(2))
        proposals.append(np.asarray(proposal.u))
    assert is_tuned(np.asarray(proposals)) == [0, -1, -1]


def test_impossible_sources_are_refused():
    with pytest.raises(ConfigError, match=r"shape \[K >= 1, 2\]"):
        warm_start(PortfolioTheta(jnp.zeros((3, 5))), SPACE, sobol(SPACE))
    with pytest.raises(ConfigError, match="probe must be from 0 to the 5 updates"):
        warm_weights(training(5), probe=6)
    with pytest.raises(ConfigError, match="holds no weights"):
        episode(warm_weights(training(5)), jax.random.key(0), Theta({}), line(2.0))


def training(steps: int) -> Inner:
    """Linear regression under gradient descent."""
    return gradient_descent(regressor((1, 1)), None, steps=steps, fixed={"learning_rate": 0.02})


def line(slope: float | jax.Array):
    """Training and validation data of a line."""
    x = jnp.linspace(-1.0, 1.0, 8, dtype=jnp.float32)[:, None]
    return (x, slope * x), (x, slope * x)


def weights(slope: float):
    return [(jnp.full((1, 1), slope, jnp.float32), jnp.zeros((1,), jnp.float32))]


@pytest.mark.parametrize("probe", [0, 3])
def test_weights_of_a_source_help_and_those_that_mislead_are_dropped(key, probe):
    inner, target = training(5), line(2.0)

    def loss(theta, **options):
        return float(episode(warm_weights(inner, **options), key, theta, target)[0])

    cold = float(episode(inner, key, Theta({}), target)[0])
    assert loss(Theta({}, weights(1.9)), probe=probe) < 0.1 * cold
    assert loss(Theta({}, weights(-30.0)), probe=probe) == cold
    assert loss(Theta({}, weights(np.nan)), probe=probe) == cold
    assert loss(Theta({}, weights(-30.0)), guard=False) > cold


def test_tasks_decide_each_for_itself_and_gradients_reach_the_weights_that_are_used(key):
    inner = warm_weights(training(5))
    theta, slopes = Theta({}, weights(2.0)), jnp.asarray([2.1, -30.0], jnp.float32)
    tasks = jax.vmap(line)(slopes)
    together = jax.vmap(lambda task: episode(inner, key, theta, task)[0])(tasks)
    for i, slope in enumerate((2.1, -30.0)):
        np.testing.assert_allclose(together[i], episode(inner, key, theta, line(slope))[0], rtol=1e-5)
    slopes = [reverse(inner).step(key, theta, (), line(s))[0].gradient.weights[0][0] for s in (2.1, -30.0)]
    assert float(slopes[0].item()) != 0 and float(slopes[1].item()) == 0
