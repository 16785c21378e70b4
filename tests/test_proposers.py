"""The contract that every proposer keeps: adding one means adding a row to `PROPOSERS`."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_metadataset, tiny_space

from metahpo_jax import driver
from metahpo_jax.base import Candidates, Evaluation, Purpose, Status, no_candidates, run_key, trial_key
from metahpo_jax.errors import ConfigError
from metahpo_jax.history import History, untried
from metahpo_jax.metalearners import warm_start
from metahpo_jax.objectives import Table, table, user_function
from metahpo_jax.proposers import PortfolioTheta, gp_bo, grid, portfolio, random, resume_best, sobol, then

SPACE = tiny_space()
LIST = PortfolioTheta(jnp.asarray(np.random.default_rng(0).random((5, SPACE.size)), jnp.float32))

# name -> (proposer, whether a model is fitted: then scan and loop agree to rounding, otherwise bit by bit)
PROPOSERS = {
    "random": (random(SPACE), False),
    "sobol": (sobol(SPACE), False),
    "grid": (grid(SPACE), False),
    "portfolio": (portfolio(LIST, SPACE), False),
    "resume_best": (resume_best(random(SPACE), width=3), False),
    "then": (then(portfolio(LIST, SPACE), 3, sobol(SPACE)), False),
    "warm_start": (warm_start(LIST, SPACE, sobol(SPACE)), False),
    "gp": (gp_bo(SPACE, opening=sobol(SPACE)), True),
}
TRIALS = 9


def pool(n: int = 32, seed: int = 1) -> Candidates:
    data = tiny_metadataset(configs=n, seed=seed)
    return Candidates(u=jnp.asarray(data.u), active=jnp.asarray(data.active), mask=jnp.ones((n,), bool))


def recorded(n: int = 32, seed: int = 1, task: int = 0) -> Table:
    data = tiny_metadataset(configs=n, seed=seed)
    status = np.where(np.isfinite(data.valid_loss[task]), int(Status.OK), int(Status.DIVERGED))
    return Table(
        loss=jnp.asarray(data.valid_loss[task]), cost=jnp.asarray(data.flops[task], jnp.float32),
        status=jnp.asarray(status, jnp.int32), fidelity=jnp.asarray(data.fidelity, jnp.float32),
    )  # fmt: skip


def context(candidates: Candidates | None = None):
    return SPACE.context(budget=TRIALS, max_fidelity=27.0)


def scanned(proposer, seed: int = 0, task: int = 0, steps: int = TRIALS) -> History:
    run = jax.jit(lambda key: driver.search(key, proposer, table(recorded(task=task)), context(), pool(), steps=steps))
    return run(run_key(jax.random.key(0), task, seed))


@pytest.mark.parametrize("name", PROPOSERS)
def test_scan_equals_python_loop(name: str) -> None:
    proposer, fits = PROPOSERS[name]
    key = run_key(jax.random.key(0), 0, 3)
    under_scan = scanned(proposer, seed=3)
    in_loop = driver.search_on_host(key, proposer, table(recorded()), context(), pool(), steps=TRIALS)
    for field in ("trial", "row", "u", "fidelity", "loss", "status"):
        a, b = (np.asarray(getattr(h, field))[:TRIALS] for h in (under_scan, in_loop))
        if fits:
            np.testing.assert_allclose(a, b, atol=1e-5, err_msg=field)
        else:
            np.testing.assert_array_equal(a, b, err_msg=field)


@pytest.mark.parametrize("name", PROPOSERS)
def test_proposals_exist(name: str) -> None:
    history = scanned(PROPOSERS[name][0])
    candidates, rows = pool(), np.asarray(history.row)[:TRIALS]
    assert np.asarray(history.count) == TRIALS
    np.testing.assert_array_equal(np.asarray(history.u)[:TRIALS], np.asarray(candidates.u)[rows])
    pairs = list(zip(rows.tolist(), np.asarray(history.fidelity)[:TRIALS].tolist(), strict=True))
    assert len(set(pairs)) == TRIALS, "a row of the pool was tried twice at the same fidelity"


@pytest.mark.parametrize("name", PROPOSERS)
def test_continuous_proposals_are_valid_configurations(name: str) -> None:
    proposer, _ = PROPOSERS[name]
    history = driver.search_on_host(
        jax.random.key(5),
        proposer,
        user_function(lambda c: c["learning_rate"], SPACE),
        context(),
        no_candidates(SPACE.size),
        steps=6,
    )
    u = np.asarray(history.u)[:6]
    assert ((u >= 0) & (u <= 1)).all()
    np.testing.assert_allclose(np.asarray(jax.vmap(SPACE.snap)(jnp.asarray(u))), u, atol=1e-6)
    np.testing.assert_array_equal(np.asarray(jax.vmap(SPACE.active)(jnp.asarray(u))), np.asarray(history.active)[:6])
    assert (np.asarray(history.row) == -1).all()


@pytest.mark.parametrize("name", PROPOSERS)
def test_vmap_equals_loop_over_seeds(name: str) -> None:
    proposer, _ = PROPOSERS[name]
    keys = jax.vmap(lambda s: run_key(jax.random.key(0), 0, s))(jnp.arange(3))
    together = jax.jit(
        jax.vmap(lambda k: driver.search(k, proposer, table(recorded()), context(), pool(), steps=TRIALS))
    )(keys)
    for seed in range(3):
        np.testing.assert_array_equal(np.asarray(together.row[seed]), np.asarray(scanned(proposer, seed=seed).row))


@pytest.mark.parametrize("name", PROPOSERS)
def test_second_ask_does_not_recompile(name: str) -> None:
    proposer, _ = PROPOSERS[name]
    run = driver.start(jax.random.key(0), proposer, context(), 16)
    ask = jax.jit(chex.assert_max_traces(lambda key, run: driver.ask(key, proposer, run, pool()), n=1))
    proposal, run = ask(jax.random.key(0), run)
    run = driver.tell(proposer, run, proposal, evaluation(0.3, proposal))
    chex.clear_trace_counter()
    again, after = ask(jax.random.key(0), run)
    assert jax.tree.structure(proposal) == jax.tree.structure(again)
    chex.assert_trees_all_equal_shapes_and_dtypes(run, after)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("name", PROPOSERS)
def test_a_bad_result_neither_wins_nor_spreads(name: str, bad: float) -> None:
    proposer, _ = PROPOSERS[name]
    run = driver.start(jax.random.key(0), proposer, context(), 16)
    ask, tell = driver.compiled(proposer)
    for i in range(6):
        proposal, run = ask(jax.random.key(0), run, pool())
        assert bool(jnp.all(jnp.isfinite(proposal.u))) and 0 <= int(proposal.row) < 32
        run = tell(run, proposal, evaluation(bad if i == 1 else 0.5 + i, proposal))
    assert int(run.history.status[1]) == Status.DIVERGED
    assert int(run.history.incumbent) != 1


@pytest.mark.parametrize("name", [n for n in PROPOSERS if n != "resume_best"])
def test_a_batch_sees_its_earlier_members_as_pending(name: str) -> None:
    proposer, _ = PROPOSERS[name]
    run = driver.start(jax.random.key(0), proposer, context(), 16)
    proposals, run = driver.ask_batch(jax.random.key(0), proposer, run, pool(), 4)
    assert len(set(np.asarray(proposals.row).tolist())) == 4
    assert np.asarray(proposals.trial).tolist() == [0, 1, 2, 3]
    assert int(jnp.sum(run.history.pending)) == 4
    # told in another order than asked
    for i in (2, 0, 3, 1):
        one = jax.tree.map(lambda x, i=i: x[i], proposals)
        run = driver.tell(proposer, run, one, evaluation(float(i), one))
    np.testing.assert_array_equal(np.asarray(run.history.loss)[:4], [0.0, 1.0, 2.0, 3.0])


def evaluation(loss: float, proposal) -> Evaluation:
    return Evaluation(
        loss=jnp.asarray(loss, jnp.float32), cost=jnp.ones((), jnp.float32), fidelity=proposal.fidelity,
        status=jnp.asarray(int(Status.OK), jnp.int32),
    )  # fmt: skip


def test_random_covers_the_pool_without_repeats() -> None:
    history = scanned(random(SPACE), steps=32)
    assert sorted(np.asarray(history.row)[:32].tolist()) == list(range(32))
    assert not bool(jnp.any(untried(history, pool())))


def test_sobol_fills_the_cube_better_than_random() -> None:
    from scipy.stats import qmc

    from metahpo_jax.spaces import Float, Space

    space = Space(a=Float(0, 1), b=Float(0, 1), c=Float(0, 1))
    ctx = space.context(budget=64)

    def points(proposer) -> np.ndarray:
        objective = user_function(lambda c: 0.0, space)
        return np.asarray(
            driver.search_on_host(jax.random.key(0), proposer, objective, ctx, no_candidates(3), steps=64).u
        )

    assert qmc.discrepancy(points(sobol(space))) < 0.5 * qmc.discrepancy(points(random(space)))


def test_then_hands_over_after_its_trials() -> None:
    first, second = portfolio(LIST, SPACE), random(SPACE)
    both, alone = scanned(then(first, 3, second)), scanned(first)
    np.testing.assert_array_equal(both.row[:3], alone.row[:3])
    assert not np.array_equal(both.row[3:TRIALS], alone.row[3:TRIALS])


def test_given_trials_are_known_but_not_counted() -> None:
    """A list starts at its first entry after given trials, and never proposes their rows again."""
    given = jnp.asarray([3, 7], jnp.int32)
    told = SPACE.context(budget=TRIALS, max_fidelity=27.0, given=2)
    run = driver.search(
        run_key(jax.random.key(0), 0, 0), portfolio(LIST, SPACE), table(recorded()), told, pool(), steps=4, given=given
    )
    alone = scanned(portfolio(LIST, SPACE), steps=4)
    np.testing.assert_array_equal(run.row[:2], given)
    np.testing.assert_array_equal(run.trial[:6], np.arange(6))
    assert run.row[2] == alone.row[0] and not set(np.asarray(run.row[2:6])) & {3, 7}
    np.testing.assert_array_equal(run.loss[:2], recorded().loss[given, -1])
    host = driver.search_on_host(
        run_key(jax.random.key(0), 0, 0), portfolio(LIST, SPACE), table(recorded()), told, pool(), steps=4, given=given
    )
    np.testing.assert_array_equal(host.row[:6], run.row[:6])


def test_grid_is_a_factorial_design() -> None:
    from metahpo_jax.spaces import Choice, Float, Space

    space = Space(a=Float(0, 1), b=Choice("x", "y"), c=Float(0, 1))
    ctx = space.context(budget=18)
    objective = user_function(lambda c: 0.0, space)
    u = np.asarray(driver.search_on_host(jax.random.key(0), grid(space), objective, ctx, no_candidates(3), steps=18).u)[
        :18
    ]
    assert len({tuple(np.round(r, 5)) for r in u}) == 18
    assert {round(float(v), 4) for v in u[:, 0]} == {0.1667, 0.5, 0.8333}
    assert {round(float(v), 4) for v in u[:, 1]} == {0.25, 0.75}


def test_resume_best_promotes_the_best_third_at_thrice_the_fidelity() -> None:
    history = scanned(resume_best(random(SPACE), width=9), steps=13)
    fidelity, trial, loss = (np.asarray(getattr(history, f))[:13] for f in ("fidelity", "trial", "loss"))
    np.testing.assert_allclose(fidelity, [3.0] * 9 + [9.0] * 3 + [27.0])
    first = np.where(np.isfinite(loss[:9]), loss[:9], np.inf)
    assert set(trial[9:12]) == set(np.argsort(first)[:3])
    assert trial[12] == trial[9:12][np.argmin(loss[9:12])]


def test_a_live_trial_resumes_where_it_stopped() -> None:
    """Successive halving over real training: scan and Python loop agree, and a promoted trial equals one that never stopped."""
    from helpers import make_task

    from metahpo_jax.base import training_keys
    from metahpo_jax.learners import Capacity, MLPConfig, mlp
    from metahpo_jax.objectives import live
    from metahpo_jax.spaces import Float, Space

    space, task, key = Space(rate=Float(1e-3, 0.3, log=True)), make_task(), run_key(jax.random.key(4), 0, 0)
    learner = mlp(Capacity(1, 16, 16), horizon=432, points=(48, 144, 432))

    def hyperparameters(u):
        whole, none = jnp.asarray(16, jnp.int32), jnp.zeros((), jnp.int32)
        zero = jnp.zeros((), jnp.float32)
        rate = space.values(u)["rate"].astype(jnp.float32)
        return MLPConfig(
            accumulate=none + 1, optimiser=none + 2, schedule=none, learning_rate=rate, weight_decay=zero, label_smoothing=zero,
            width=whole, activation=none, dropout=zero,
        )  # fmt: skip

    objective = live(key, learner, task, hyperparameters)
    ctx, proposer = space.context(budget=13, max_fidelity=432.0), resume_best(random(space), width=9)
    scan = jax.jit(lambda k: driver.search(k, proposer, objective, ctx, no_candidates(1), steps=13))(key)
    loop = driver.search_on_host(key, proposer, objective, ctx, no_candidates(1), steps=13)
    np.testing.assert_array_equal(np.asarray(scan.trial)[:13], np.asarray(loop.trial)[:13])
    np.testing.assert_allclose(np.asarray(scan.loss)[:13], np.asarray(loop.loss)[:13], rtol=1e-5)
    np.testing.assert_array_equal(np.asarray(loop.fidelity)[:13], [48.0] * 9 + [144.0] * 3 + [432.0])

    start, train = training_keys(key)
    h = hyperparameters(loop.u[12])
    one = jax.tree.map(lambda x: x[None], (h, learner.init(start, h, task)))
    state, _ = learner.train(train, *one, task, 0, 432)
    whole = learner.evaluate(jax.tree.map(lambda x: x[0], state), task, "valid").loss
    np.testing.assert_allclose(np.asarray(loop.loss)[12], whole, rtol=1e-6)


def test_keys_of_asking_and_evaluating_differ() -> None:
    run = run_key(jax.random.key(0), 1, 2)
    keys = {tuple(np.asarray(jax.random.key_data(trial_key(run, t, p)))) for t in range(3) for p in Purpose}
    assert len(keys) == 6


def test_untraceable_objectives_are_refused_under_scan() -> None:
    with pytest.raises(ConfigError, match="search_on_host"):
        driver.search(
            jax.random.key(0),
            random(SPACE),
            user_function(lambda c: 0.0, SPACE),
            context(),
            no_candidates(SPACE.size),
            steps=2,
        )


@pytest.mark.parametrize(("width", "eta"), [(8, 3), (1, 3), (9, 1)])
def test_brackets_that_do_not_divide_are_refused(width: int, eta: int) -> None:
    with pytest.raises(ConfigError, match="resume_best"):
        resume_best(random(SPACE), width=width, eta=eta)
