"""Planted leaks are caught, and the methods that ship have none."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_archive, tiny_metadataset

from metahpo_jax.base import Candidates, Context, Key, Proposal, Proposer
from metahpo_jax.errors import SplitError
from metahpo_jax.evaluation.audit import audit
from metahpo_jax.evaluation.benchmarks import Benchmark, tabular_benchmark
from metahpo_jax.evaluation.methods import METHODS, Method
from metahpo_jax.evaluation.splits import by_base
from metahpo_jax.history import History
from metahpo_jax.metadata import archive_of
from metahpo_jax.metalearners import learn_portfolio
from metahpo_jax.proposers import portfolio, random
from metahpo_jax.proposers.pool import propose

SHARED = tabular_benchmark(archive_of(tiny_metadataset(tasks=4, configs=24)))
ARCHIVE = tiny_archive()
UNSHARED = Benchmark("tiny", ARCHIVE, by_base(ARCHIVE), "leave one data set out", "a rule", trials=5)


def constant(benchmark: Benchmark) -> Method:
    """Constants fitted on all data, test included: where the best configurations of all tasks lie on average."""
    scored = np.stack([task.scored for task in benchmark.archive.tasks])
    wish = benchmark.archive.tasks[0].u[scored.argmin(1)].mean(0)
    return Method(lambda space, theta: near(wish))


def scaled(benchmark: Benchmark) -> Method:
    """Targets scaled by the whole table: searches at random once it knows how far it is from the table's best."""
    best = min(float(benchmark.archive.tasks[t].scored.min()) for t in benchmark.tested)

    def propose_from(space, theta) -> Proposer:
        inner = random(space)

        def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
            told = jnp.min(jnp.where(history.ok, history.loss, 1e9))
            drawn, state = inner.ask(key, state, history, candidates)
            wish = jnp.where(told - best < 0.3, drawn.u, jnp.full_like(drawn.u, 0.5))
            return propose(state, history, candidates, wish), state

        return inner._replace(ask=ask)

    return Method(propose_from)


def trained_on_test(benchmark: Benchmark) -> Method:
    """A portfolio of all tasks, those held out among them."""
    everything = np.stack([task.scored for task in benchmark.archive.tasks])
    theta = learn_portfolio(benchmark.archive.tasks[0].u, everything, 5)
    return Method(lambda space, _: portfolio(theta, space))


def near(wish: np.ndarray) -> Proposer:
    """Proposes what lies nearest to one point."""

    def ask(key: Key, state: Context, history: History, candidates: Candidates) -> tuple[Proposal, Context]:
        return propose(state, history, candidates, jnp.asarray(wish, jnp.float32)), state

    return Proposer(lambda key, context: context, ask, lambda state, proposal, evaluation: state)


@pytest.mark.parametrize("planted", [constant, scaled, trained_on_test], ids=lambda leak: leak.__name__)
def test_a_planted_leak_is_caught(planted) -> None:
    with pytest.raises(SplitError, match="a leak: proposal"):
        audit(SHARED, planted, trials=5)


# The two with a Gaussian process, slow to compile, are held to the same in `test_protocol.py`.
@pytest.mark.parametrize("name", ["random", "portfolio", "portfolio_imagined", "empirical_gaussian"])
def test_no_leak_is_found_where_there_is_none(name: str) -> None:
    audit(SHARED, lambda _: METHODS[name], trials=5, seeds=2)


@pytest.mark.parametrize("name", ["random", "portfolio"])
def test_no_leak_is_found_with_tasks_of_their_own_pools_and_starts(name: str) -> None:
    starts = np.tile(np.array([3, 0, 5]), (len(ARCHIVE.tasks), 1, 1))
    audit(dataclasses.replace(UNSHARED, starts=starts), lambda _: METHODS[name], trials=5, fold=1)


def test_a_test_task_in_training_is_refused_before_anything_runs() -> None:
    first, *rest = SHARED.folds
    for field, word in (("train", "learns from test task"), ("valid", "learns from test task")):
        leaky = first._replace(**{field: getattr(first, field) | first.test})
        with pytest.raises(SplitError, match=word):
            dataclasses.replace(SHARED, folds=[leaky, *rest])


def test_another_name_of_the_same_data_set_is_refused_too() -> None:
    first, *rest = SHARED.folds
    test = first.test.copy()
    test[np.flatnonzero(test)[1:]] = False
    leaky = first._replace(test=test, train=~test)
    with pytest.raises(SplitError, match="both made of the data set"):
        dataclasses.replace(SHARED, folds=[leaky, *rest])
