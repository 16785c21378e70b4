"""The masked history: rows that are pending, told, failed, resumed or one too many, in a loop and under `scan`."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax.base import Candidates, Evaluation, Proposal, Status
from metahpo_jax.errors import BudgetError
from metahpo_jax.history import History, capacity_for, empty, grow, record, record_pending, untried

D = 3


def proposal(trial: int, fidelity: float = 1.0, row: int = -1) -> Proposal:
    return Proposal(
        trial=jnp.asarray(trial, jnp.int32),
        row=jnp.asarray(row, jnp.int32),
        u=jnp.full((D,), 0.1 * (trial + 1), jnp.float32),
        active=jnp.asarray([True, trial % 2 == 0, False]),
        fidelity=jnp.asarray(fidelity, jnp.float32),
    )


def evaluation(loss: float, fidelity: float = 1.0, status: Status = Status.OK, cost: float = 2.0) -> Evaluation:
    return Evaluation(
        loss=jnp.asarray(loss, jnp.float32),
        cost=jnp.asarray(cost, jnp.float32),
        fidelity=jnp.asarray(fidelity, jnp.float32),
        status=jnp.asarray(status.value, jnp.int32),
    )


def told(*rows: tuple[Any, ...], capacity: int = 8) -> History:
    """A history of (trial, loss, fidelity, status) rows; a loss of None stays pending."""
    history = empty(capacity, D)
    for trial, loss, *rest in rows:
        fidelity = float(rest[0]) if rest else 1.0
        status = Status(rest[1]) if len(rest) > 1 else Status.OK
        history = record_pending(history, proposal(trial, fidelity))
        if loss is not None:
            history = record(history, proposal(trial, fidelity), evaluation(loss, fidelity, status))
    return history


def assert_same(a: History, b: History) -> None:
    """Bit for bit, types and NaN included."""
    for name, x, y in zip(vars(a), jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes(), name


def test_empty_history() -> None:
    history = empty(8, D)
    assert (history.capacity, int(history.count), int(history.next_trial), int(history.incumbent)) == (8, 0, 0, 0)
    for flags in (history.ok, history.failed, history.pending):
        assert not flags.any()
    assert history.trial.tolist() == [-1] * 8 and jnp.isnan(history.loss).all()


def test_pending_rows_are_filled_in_the_order_of_asking() -> None:
    history = told((0, None), (1, None), (2, None))
    assert history.status.tolist()[:4] == [Status.PENDING] * 3 + [Status.EMPTY]
    assert (int(history.count), int(history.next_trial)) == (3, 3)
    np.testing.assert_array_equal(np.asarray(history.u[1]), np.asarray(proposal(1).u))
    assert history.active[1].tolist() == [True, False, False]
    history = record(history, proposal(1), evaluation(0.25, cost=7.0))  # told out of order
    assert history.pending.tolist()[:3] == [True, False, True]
    assert history.ok.tolist()[:3] == [False, True, False]
    assert (float(history.loss[1]), float(history.cost[1])) == (0.25, 7.0)
    assert jnp.isnan(history.loss[jnp.asarray([0, 2])]).all()


@pytest.mark.parametrize(
    ("status", "loss", "becomes"),
    [
        (Status.OK, 0.5, Status.OK),
        (Status.OK, math.nan, Status.DIVERGED),
        (Status.OK, math.inf, Status.DIVERGED),
        (Status.OK, -math.inf, Status.DIVERGED),
        (Status.STOPPED, 0.5, Status.STOPPED),
        (Status.STOPPED, math.nan, Status.DIVERGED),
        (Status.DIVERGED, 0.5, Status.DIVERGED),
        (Status.FAILED, math.nan, Status.FAILED),
    ],
)
def test_failure_is_data(status: Status, loss: float, becomes: Status) -> None:
    history = told((0, 0.9), (1, loss, 1.0, status))
    good = becomes in (Status.OK, Status.STOPPED)
    assert int(history.status[1]) == becomes
    assert bool(history.ok[1]) is good and bool(history.failed[1]) is not good and not bool(history.pending[1])
    assert int(history.incumbent) == (1 if good else 0)


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        ([(0, 0.5), (1, 0.2), (2, 0.3)], 1),
        ([(0, None), (1, 0.7), (2, None)], 1),
        ([(0, 0.2), (1, 0.2)], 0),  # the earlier one of a tie
        ([(0, math.nan), (1, 0.1, 1.0, Status.FAILED)], 0),  # none at all
        ([(0, 0.1, 1.0), (1, 0.9, 3.0), (2, 0.8, 3.0)], 2),  # a loss at a lower fidelity does not compare
        ([(0, 0.1, 1.0), (1, 0.01, 9.0, Status.DIVERGED)], 0),  # a failure reached no fidelity
        ([(0, 0.1, 1.0), (1, None, 9.0)], 0),
        ([(0, -3.0), (1, -5.0)], 1),
    ],
)
def test_incumbent(rows: list[tuple[Any, ...]], row: int) -> None:
    assert int(told(*rows).incumbent) == row


def test_a_resumed_trial_has_a_row_per_fidelity() -> None:
    history = told((0, 0.9, 1.0), (1, 0.8, 1.0), (0, None, 3.0))
    assert history.trial.tolist()[:3] == [0, 1, 0] and int(history.next_trial) == 2
    history = record(history, proposal(0, 3.0), evaluation(0.4, 3.0))
    np.testing.assert_allclose(history.loss[:3], [0.9, 0.8, 0.4])
    np.testing.assert_array_equal(history.fidelity[:3], [1, 1, 3])
    assert int(history.incumbent) == 2
    # Both rungs may be pending at once, and each result finds its own.
    both = told((0, None, 1.0), (0, None, 3.0))
    both = record(record(both, proposal(0, 3.0), evaluation(0.3, 3.0)), proposal(0, 1.0), evaluation(0.6, 1.0))
    np.testing.assert_allclose(both.loss[:2], [0.6, 0.3])


def test_the_fidelity_reached_replaces_the_planned_one() -> None:
    history = record(told((0, None, 9.0)), proposal(0, 9.0), evaluation(0.5, 4.0, Status.STOPPED))
    assert float(history.fidelity[0]) == 4.0 and bool(history.ok[0])


@pytest.mark.parametrize(
    "stranger",
    [proposal(5), proposal(-1), proposal(0, 3.0), proposal(1)],
    ids=["unknown", "empty", "another fidelity", "already told"],
)
def test_telling_what_is_not_pending_changes_nothing(stranger: Proposal) -> None:
    history = told((0, None), (1, 0.5))
    assert_same(record(history, stranger, evaluation(0.1)), history)


def test_a_full_history_drops_rows_and_keeps_the_others() -> None:
    full = told(*[(i, 0.1 * i) for i in range(7)], (7, None))
    assert int(full.count) == full.capacity
    more = record_pending(full, proposal(8))
    assert_same(more, full)
    assert_same(record(more, proposal(8), evaluation(-1.0)), full)
    assert float(record(more, proposal(7), evaluation(-1.0)).loss[7]) == -1.0


def test_grow_keeps_every_row() -> None:
    history = told(*[(i, 0.1 * i) for i in range(7)], (7, None))
    larger = grow(history, 16)
    assert (larger.capacity, int(larger.count), int(larger.incumbent)) == (16, 8, 0)
    assert_same(jax.tree.map(lambda x: x[:8], larger), history)
    assert_same(jax.tree.map(lambda x: x[8:], larger), empty(8, D))
    assert_same(grow(history, 8), history)
    larger = record(record_pending(larger, proposal(8)), proposal(7), evaluation(0.3))
    assert larger.status.tolist()[7:9] == [Status.OK, Status.PENDING]
    with pytest.raises(BudgetError, match=r"own 16, got 8"):
        grow(larger, 8)


def test_capacities_are_powers_of_two() -> None:
    table = {0: 8, 1: 8, 8: 8, 9: 16, 16: 16, 17: 32, 50: 64, 1000: 1024, 1024: 1024, 1025: 2048}
    assert {n: capacity_for(n) for n in table} == table
    assert len({capacity_for(n) for n in range(1, 1001)}) <= math.log2(1000) + 1


def test_untried_leaves_out_used_and_padded_candidates() -> None:
    pool = Candidates(
        u=jnp.zeros((5, D), jnp.float32),
        active=jnp.ones((5, D), bool),
        mask=jnp.asarray([True, True, True, True, False]),
    )
    history = empty(8, D)
    assert untried(history, pool).tolist() == [True, True, True, True, False]
    history = record_pending(history, proposal(0, row=2))
    history = record(record_pending(history, proposal(1, row=0)), proposal(1, row=0), evaluation(math.nan))
    history = record_pending(history, proposal(2, row=-1))  # not of the pool
    history = record_pending(history, proposal(3, row=99))  # of a larger one
    assert untried(history, pool).tolist() == [False, True, False, True, False]
    none = jax.tree.map(lambda x: x[:0], pool)
    assert untried(history, none).shape == (0,)


@pytest.mark.parametrize("wide", [False, True])
def test_scan_and_loop_are_bitwise_equal(wide: bool) -> None:
    """Twelve asks, each told two steps late, into eight rows: the overflow is part of the contract."""
    steps = 12
    with jax.enable_x64(wide):
        losses = jnp.asarray(np.random.default_rng(0).normal(size=steps).astype(np.float32)).at[3].set(jnp.nan)

        def at(i: Any) -> Proposal:
            i = jnp.asarray(i, jnp.int32)
            u = jax.random.uniform(jax.random.fold_in(jax.random.key(1), i), (D,), jnp.float32)
            fidelity = 3.0 ** (i % 3).astype(jnp.float32)
            return Proposal(trial=i // 2, row=i, u=u, active=u > 0.5, fidelity=fidelity)

        def step(history: History, i: Any) -> tuple[History, Any]:
            history = record_pending(history, at(i))
            late = jnp.maximum(jnp.asarray(i, jnp.int32) - 2, 0)
            found = Evaluation(losses[late], at(late).fidelity * 2, at(late).fidelity, jnp.int32(Status.OK.value))
            return record(history, at(late), found), history.incumbent

        looped = empty(8, D)
        for i in range(steps):
            looped, _ = step(looped, i)
        scanned, incumbents = jax.jit(lambda h: jax.lax.scan(step, h, jnp.arange(steps, dtype=jnp.int32)))(empty(8, D))
        assert_same(scanned, looped)
        assert incumbents.dtype == jnp.int32
        assert int(scanned.count) == 8 and scanned.ok.any() and scanned.failed.any()


def test_wider_types_are_cast_to_the_historys_own(x64: None) -> None:
    """A user's function gives Python floats and float64; rows stay float32, and a planned 0.1 is found again."""
    history = empty(8, D)
    given: list[Any] = [0, -1, np.full(D, 0.3), np.ones(D, bool), np.float64(0.1)]
    found: list[Any] = [np.float64(0.7), 1, 0.1, Status.OK]
    asked = Proposal(*given)
    history = record_pending(history, asked)
    history = record(history, asked, Evaluation(*found))
    assert [x.dtype for x in jax.tree.leaves(history)] == [x.dtype for x in jax.tree.leaves(empty(8, D))]
    assert bool(history.ok[0]) and float(history.loss[0]) == pytest.approx(0.7)
    for number in (history.count, history.next_trial, history.incumbent):
        assert number.dtype == jnp.int32


def test_histories_batch_under_vmap() -> None:
    histories = jax.tree.map(lambda *x: jnp.stack(x), told((0, 0.5), (1, 0.2)), told((0, 0.1), (1, None)))
    assert jax.vmap(lambda h: h.incumbent)(histories).tolist() == [1, 0]
    batch = jax.vmap(record, in_axes=(0, None, None))(histories, proposal(1), evaluation(0.05))
    np.testing.assert_allclose(batch.loss[:, 1], [0.2, 0.05])
