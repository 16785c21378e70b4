"""Bayesian optimisation: better than random search, the same everywhere it runs, and unmoved by failures."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax import acquisitions
from metahpo_jax.base import Candidates, Evaluation, Objective, Status, Surrogate, no_candidates
from metahpo_jax.driver import ask, search, search_on_host, start, tell
from metahpo_jax.history import empty
from metahpo_jax.proposers.bo import POOL_CHUNK, _in_chunks, bo, gp_bo
from metahpo_jax.proposers.uniform import random
from metahpo_jax.spaces import Choice, Float, Int, Space

SQUARE = Space(x=Float(-5.0, 10.0), y=Float(0.0, 15.0))
MIXED = Space(
    rate=Float(1e-4, 1.0, log=True),
    width=Int(1, 6),
    optimiser=Choice("sgd", "adam", "lion"),
    momentum=Float(0.0, 0.9, when={"optimiser": "sgd"}),
)


def branin(u):
    """Branin's function on the unit square; its minimum is 0.397887."""
    x, y = 15.0 * u[0] - 5.0, 15.0 * u[1]
    valley = y - 5.1 / (4 * jnp.pi**2) * x**2 + 5.0 / jnp.pi * x - 6.0
    return valley**2 + 10.0 * (1.0 - 1.0 / (8.0 * jnp.pi)) * jnp.cos(x) + 10.0


def objective(loss) -> Objective:
    """`loss(u)` as an objective that ends at once; NaN is left to be found out by the history."""

    def advance(u, fidelity):
        one = jnp.ones((), jnp.float32)
        return Evaluation(
            loss=loss(u).astype(jnp.float32), cost=one, fidelity=one, status=jnp.asarray(Status.OK, jnp.int32)
        ), u

    return Objective(start=lambda key, proposal: proposal.u, advance=advance)


def fake_surrogate(mean) -> Surrogate:
    """A surrogate that is known: `mean(x)` everywhere, variance 1; 100 more near each point conditioned on."""

    def predict(posterior, x):
        seen, count = posterior
        near = jnp.sum((x[:, None, :] - seen[None, :, :]) ** 2, axis=-1) < 0.01
        return mean(x) + 100.0 * jnp.sum(near & (jnp.arange(8) < count)[None, :], axis=1), jnp.ones(x.shape[:1])

    class Posterior(tuple):
        params = ()

    jax.tree_util.register_pytree_node(Posterior, lambda p: (tuple(p), None), lambda _, p: Posterior(p))
    return Surrogate(
        init=lambda key, context: (),
        fit=lambda key, params, history, context: Posterior((jnp.zeros((8, 2)), jnp.zeros((), jnp.int32))),
        predict=predict,
        sample=lambda key, posterior, x: -mean(x),
        condition=lambda p, x, y: Posterior((p[0].at[p[1]].set(x), p[1] + 1)),
    )


def pool(space: Space, n: int) -> Candidates:
    u = jax.vmap(space.snap)(jax.random.uniform(jax.random.key(4), (n, space.size), jnp.float32))
    return Candidates(u=u, active=jax.vmap(space.active)(u), mask=jnp.arange(n) < n - 2)


def test_beats_random_search_on_branin():
    context, seeds, trials = SQUARE.context(budget=25), jax.random.split(jax.random.key(1), 5), 25

    def best(proposer):
        run = lambda key: search(key, proposer, objective(branin), context, no_candidates(2), steps=trials).loss  # noqa: E731
        return np.nanmin(jax.jit(jax.vmap(run))(seeds), axis=1) - 0.397887

    model, chance = best(gp_bo(SQUARE)), best(random(SQUARE))
    assert (model < chance).all()
    assert np.median(model) < 0.05 < np.median(chance)


def test_scan_and_host_loop_propose_the_same():
    candidates, context, key, steps = pool(MIXED, 32), MIXED.context(budget=8), jax.random.key(3), 8
    proposer = gp_bo(MIXED)
    loss = objective(lambda u: jnp.where(u[0] > 0.9, jnp.nan, jnp.sum((u - 0.4) ** 2)))
    scanned = jax.jit(lambda key: search(key, proposer, loss, context, candidates, steps=steps))(key)
    hosted = search_on_host(key, proposer, loss, context, candidates, steps=steps)
    np.testing.assert_array_equal(scanned.row, hosted.row)
    np.testing.assert_allclose(scanned.u, hosted.u, atol=1e-5)
    rows = np.asarray(scanned.row)
    assert len(set(rows.tolist())) == steps and (rows < 30).all()  # untried each time, never a padded candidate


@pytest.fixture(scope="module")
def continuous():
    """Trials of one study on the mixed continuous space, some failed; asks are traced once."""
    chex.clear_trace_counter()
    proposer, context, key = gp_bo(MIXED), MIXED.context(budget=8), jax.random.key(0)
    asking = jax.jit(chex.assert_max_traces(lambda run: ask(key, proposer, run, no_candidates(4)), n=1))
    return proposer, asking, start(key, proposer, context, 8)


def evaluate(proposal, i):
    failed = i in (1, 4)
    loss = np.nan if failed else float(np.sum((np.asarray(proposal.u) - 0.3) ** 2))
    status = (Status.DIVERGED if i == 1 else Status.FAILED) if failed else Status.OK
    return Evaluation(jnp.float32(loss), jnp.float32(1), proposal.fidelity, jnp.asarray(status, jnp.int32))


def test_proposals_are_valid_new_and_finite_with_failures_and_pending_trials(continuous):
    proposer, asking, run = continuous
    telling = jax.jit(lambda run, proposal, evaluation: tell(proposer, run, proposal, evaluation))
    canonical = jax.jit(lambda u: (MIXED.snap(u), MIXED.active(u), MIXED.features(u, MIXED.active(u))))
    waiting, seen = [], []
    for i in range(8):
        proposal, run = asking(run)
        assert np.isfinite(proposal.u).all() and int(proposal.trial) == i and int(proposal.row) == -1
        snapped, active, x = canonical(proposal.u)
        np.testing.assert_allclose(proposal.u, snapped, rtol=1e-6)
        np.testing.assert_array_equal(proposal.active, active)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run.state.params))
        seen.append(np.asarray(x))
        waiting.append((proposal, i))
        if len(waiting) > 2:  # results come late
            run = telling(run, waiting[0][0], evaluate(*waiting.pop(0)))
    gaps = np.abs(np.asarray(seen)[:, None] - np.asarray(seen)[None]).max(-1)
    assert gaps[np.triu_indices(8, 1)].min() > 1e-6


def test_pending_trials_are_believed():
    """Three asks in a row without a result: what is near a pending trial has lost its appeal."""
    near = jnp.asarray([[0.5, 0.5], [0.55, 0.5], [0.9, 0.5], [0.5, 0.0]], jnp.float32)
    candidates = Candidates(u=near, active=jnp.ones((4, 2), bool), mask=jnp.ones(4, bool))
    proposer = bo(SQUARE, fake_surrogate(lambda x: jnp.sum((x - 0.5) ** 2, axis=1)))
    run, rows = start(jax.random.key(0), proposer, SQUARE.context(budget=8), 8), []
    asking = jax.jit(lambda run: ask(jax.random.key(0), proposer, run, candidates))
    for _ in range(3):
        proposal, run = asking(run)
        rows.append(int(proposal.row))
    assert rows == [0, 2, 3]


def test_the_best_candidate_is_taken_and_ties_are_broken_by_the_key():
    candidates = pool(SQUARE, 16)
    tied = bo(SQUARE, fake_surrogate(lambda x: jnp.where(x[:, 0] < 0.5, 0.0, 1.0)))
    state, history = tied.init(jax.random.key(0), SQUARE.context(budget=8)), empty(8, 2)
    asking = jax.jit(jax.vmap(lambda key: tied.ask(key, state, history, candidates)[0].row))
    rows = asking(jax.random.split(jax.random.key(0), 12)).tolist()
    assert len(set(rows)) > 2
    assert (candidates.u[np.asarray(rows), 0] < 0.5).all() and max(rows) < 14
    thompson = bo(
        SQUARE, fake_surrogate(lambda x: x[:, 0]), score=acquisitions.thompson
    )  # its draw is the negated mean
    row = int(jax.jit(thompson.ask)(jax.random.key(0), state, history, candidates)[0].row)
    assert row == int(np.argmax(np.where(candidates.mask, candidates.u[:, 0], -1)))
    free, _ = jax.jit(thompson.ask)(jax.random.key(0), state, history, no_candidates(2))
    assert free.u[0] > 0.95


def test_the_opening_comes_first():
    candidates, context = pool(SQUARE, 16), SQUARE.context(budget=8)
    opening = random(SQUARE)
    proposer = bo(SQUARE, fake_surrogate(lambda x: x[:, 0]), opening=opening, opening_trials=2)
    run, key = start(jax.random.key(0), proposer, context, 8), jax.random.key(0)
    asking = jax.jit(lambda run: ask(key, proposer, run, candidates))
    lowest = int(np.argmin(np.where(candidates.mask, candidates.u[:, 0], 2)))
    rows = []
    for i in range(3):
        proposal, run = asking(run)
        run = tell(proposer, run, proposal, evaluate(proposal, i))
        rows.append(int(proposal.row))
    assert rows[2] == lowest and lowest not in rows[:2]


@pytest.mark.parametrize("n", [1, POOL_CHUNK, POOL_CHUNK + 1, 3 * POOL_CHUNK - 5])
def test_chunks_of_a_pool_score_as_the_whole(n: int) -> None:
    x = jnp.asarray(np.random.default_rng(0).random((n, 3)), jnp.float32)
    score = jax.jit(lambda x: jnp.sum(x * x, axis=1))
    np.testing.assert_array_equal(_in_chunks(score, x), score(x))
