"""Bayesian optimisation: fit a model, propose where the acquisition is best (Jones et al. 1998, Snoek et al. 2012)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from metahpo_jax.acquisitions import Acquisition, Score, log_expected_improvement, marginal
from metahpo_jax.base import Array, Candidates, Context, Evaluation, Key, Proposal, Proposer, PyTree, Surrogate
from metahpo_jax.history import History, untried
from metahpo_jax.proposers.pool import new_trial, of_row
from metahpo_jax.proposers.quasi import sobol
from metahpo_jax.spaces import Kind, Space
from metahpo_jax.surrogates.gp import gp

Evaluate = Callable[[Array], Array]  # features `[n, F]` -> score `[n]`

POOL_CHUNK = 2048  # candidates of a pool that are scored at once
GLOBAL = 1024  # uniform points at which the continuous search starts
LOCAL = 256  # perturbations of the incumbent
REFINED = 8  # best of these that are climbed from
CLIMB = 16  # steps of the climb
SAME = 1e-6  # distance in each feature below which two configurations are one
STEP = 0.05  # first step of the climb, as a share of the unit cube


class State(struct.PyTreeNode):
    """What Bayesian optimisation remembers between asks."""

    params: PyTree  # of the surrogate's last fit, where the next one starts
    opening: PyTree
    context: Context


def bo(
    space: Space,
    surrogate: Surrogate,
    *,
    acquisition: Acquisition = log_expected_improvement,
    score: Score | None = None,
    opening: Proposer | None = None,
    opening_trials: int = 3,
    given_open: bool = False,
) -> Proposer:
    """Bayesian optimisation of `space` with any surrogate.

    The first `opening_trials` trials are those of `opening`, if there is one; with `given_open`, trials that were
    given count among them. After that the surrogate is fitted,
    pending trials are believed to come out as it predicts (the kriging believer of Ginsbourger et al. 2010), and the
    untried candidate with the highest acquisition is proposed, ties broken at random. The loss to beat is the lowest
    prediction at the trials told so far, which noise does not lower. `score`, such as `acquisitions.thompson`,
    replaces the acquisition where points cannot be scored one by one.

    Opening and model are both computed and one is selected: under `vmap` a branch would cost the same, and asks do
    not differ in time.
    """
    model_score = score or marginal(acquisition)
    search = functools.partial(_search, space, is_joint=score is not None)

    def init(key: Key, context: Context) -> State:
        model_key, opening_key = jax.random.split(key)
        first = opening.init(opening_key, context) if opening else ()
        return State(params=surrogate.init(model_key, context), opening=first, context=context)

    def ask(key: Key, state: State, history: History, candidates: Candidates) -> tuple[Proposal, State]:
        fit_key, score_key, choice_key, opening_key = jax.random.split(key, 4)
        posterior = surrogate.fit(fit_key, state.params, history, state.context)
        state = state.replace(params=posterior.params)
        x = jax.vmap(space.features)(history.u, history.active)
        posterior = _believe(surrogate, posterior, x, history.pending)
        mean, _ = surrogate.predict(posterior, x)
        best = jnp.min(jnp.where(history.ok, mean, jnp.inf))
        best = jnp.where(jnp.any(history.ok), best, jnp.max(mean))

        def evaluate(x: Array) -> Array:
            return model_score(score_key, surrogate, posterior, x, best)

        if candidates.u.shape[0] > 0:
            row = _enumerate(space, choice_key, evaluate, history, candidates, is_joint=score is not None)
            proposal = of_row(state.context, history, candidates, row)
        else:
            proposal = new_trial(state.context, history, -1, *search(choice_key, evaluate, history, x))
        if opening is None:
            return proposal, state
        opened, opening_state = opening.ask(opening_key, state.opening, history, candidates)
        opened_by = history.next_trial if given_open else history.asked(state.context)
        is_opening = opened_by < opening_trials
        proposal = jax.tree.map(lambda a, b: jnp.where(is_opening, a, b), opened.replace(extras=()), proposal)
        return proposal, state.replace(opening=opening_state)

    def tell(state: State, proposal: Proposal, evaluation: Evaluation) -> State:
        return state.replace(opening=opening.tell(state.opening, proposal, evaluation)) if opening else state

    traceable = opening is None or opening.traceable
    return Proposer(init=init, ask=ask, tell=tell, traceable=traceable)


def gp_bo(
    space: Space,
    *,
    opening: Proposer | None = None,
    opening_trials: int = 3,
    acquisition: Acquisition = log_expected_improvement,
    **settings: Any,
) -> Proposer:
    """The plain baseline: a Gaussian process that knows nothing before the first trial, opened with Sobol points.

    `settings` are those of `surrogates.gp`. `opening` replaces the Sobol points; given trials serve as well as they do.
    """
    return bo(
        space,
        gp(space, **settings),
        acquisition=acquisition,
        opening=opening or sobol(space),
        opening_trials=opening_trials,
        given_open=True,
    )


def _believe(surrogate: Surrogate, posterior: PyTree, x: Array, pending: Array) -> PyTree:
    """The posterior after each pending point of `x [N, F]` came out at its mean; no work where none is pending."""
    order = jnp.argsort(~pending, stable=True)

    def observe(i: Array, posterior: PyTree) -> PyTree:
        point = x[order[i]]
        mean, _ = surrogate.predict(posterior, point[None, :])
        return surrogate.condition(posterior, point, mean[0])

    return jax.lax.fori_loop(0, jnp.sum(pending, dtype=jnp.int32), observe, posterior)


def _pick(key: Key, score: Array, eligible: Array) -> Array:
    """Index `[]` int32 of the highest score `[n]` that is eligible, ties broken at random; any index where none is."""
    score = jnp.where(eligible, jnp.where(jnp.isnan(score), -jnp.inf, score), -jnp.inf)
    is_best = eligible & (score == jnp.max(score))
    return jnp.argmax(jnp.where(is_best, jax.random.uniform(key, score.shape, jnp.float32), -1.0)).astype(jnp.int32)


def _enumerate(
    space: Space, key: Key, evaluate: Evaluate, history: History, candidates: Candidates, *, is_joint: bool
) -> Array:
    """Row `[]` of the best untried candidate; once all were tried, of the best one."""
    x = jax.vmap(space.features)(candidates.u, candidates.active)
    score = evaluate(x) if is_joint else _in_chunks(evaluate, x)
    free = untried(history, candidates)
    return _pick(key, score, jnp.where(jnp.any(free), free, candidates.mask))


def _in_chunks(evaluate: Evaluate, x: Array) -> Array:
    """Scores `[n]` of a pool `[n, F]`, `POOL_CHUNK` at a time: their covariances with the history then stay in the cache."""
    n = x.shape[0]
    if n <= POOL_CHUNK:
        return evaluate(x)
    padded = jnp.pad(x, ((0, -n % POOL_CHUNK), (0, 0)))
    return jax.lax.map(evaluate, padded.reshape(-1, POOL_CHUNK, x.shape[1])).reshape(-1)[:n]


def _search(
    space: Space, key: Key, evaluate: Evaluate, history: History, tried: Array, *, is_joint: bool
) -> tuple[Array, Array]:
    """Coordinates `[D]` and activity `[D]` of the best valid configuration found that is not in the history.

    Scores uniform points and perturbations of the incumbent, then climbs from the best few along the numbers. A joint
    draw is a function of the points that it was drawn at only: there is nothing to climb.
    """
    draw_key, choice_key = jax.random.split(key)
    # One draw for all: every call of the generator costs half a second of compilation.
    draws = jax.random.uniform(draw_key, (GLOBAL + LOCAL, 2 * space.size + 1), jnp.float32)
    around = _perturb(space, history.u[history.incumbent], draws[GLOBAL:])
    u, active, x = _valid(space, jnp.concatenate([draws[:GLOBAL, : space.size], around]))
    score = jnp.where(_is_new(x, tried, history), evaluate(x), -jnp.inf)
    if not is_joint:
        top_score, top = jax.lax.top_k(score, REFINED)
        climbed, climbed_score = _climb(space, evaluate, u[top])
        climbed, climbed_active, x = _valid(space, climbed)
        climbed_score = jnp.where(_is_new(x, tried, history), climbed_score, -jnp.inf)
        u, active = jnp.concatenate([u[top], climbed]), jnp.concatenate([active[top], climbed_active])
        score = jnp.concatenate([top_score, climbed_score])
    winner = _pick(choice_key, score, jnp.ones(score.shape, bool))
    return u[winner], active[winner]


def _valid(space: Space, u: Array) -> tuple[Array, Array, Array]:
    """Snapped coordinates `[n, D]`, activity `[n, D]` and features `[n, F]` of any coordinates `[n, D]`."""
    u = jax.vmap(space.snap)(u)
    active = jax.vmap(space.active)(u)
    return u, active, jax.vmap(space.features)(u, active)


def _is_new(x: Array, tried: Array, history: History) -> Array:
    """`[n]` bool: features `[n, F]` that no row of the history has, to the rounding of the codec."""
    is_row = history.trial >= 0
    return ~jax.vmap(lambda one: jnp.any(is_row & jnp.all(jnp.abs(one[None, :] - tried) < SAME, axis=1)))(x)


def _perturb(space: Space, centre: Array, draws: Array) -> Array:
    """Neighbours `[n, D]` of a point `[D]` at many scales, made of uniform `draws [n, 2 D + 1]`.

    Half of the numbers move, and some choices are drawn anew.
    """
    coin, draw, scale = jnp.split(draws, [space.size, 2 * space.size], axis=1)
    scale = 10.0 ** (-3.0 + 2.5 * scale)
    is_choice = jnp.asarray(space.arrays.kind == Kind.CHOICE)[None, :]
    # A choice has no small step: the smaller the scale, the more rarely it is drawn anew.
    moves = coin < jnp.where(is_choice, scale, 0.5)
    moved = jnp.where(is_choice, draw, centre[None, :] + 2.0 * scale * (draw - 0.5))
    return jnp.clip(jnp.where(moves, moved, centre[None, :]), 0.0, 1.0)


def _climb(space: Space, evaluate: Evaluate, u: Array) -> tuple[Array, Array]:
    """Points `[k, D]` and scores `[k]` after steps up the gradient along numbers, from `u [k, D]`, each of its own size."""
    kind = jnp.asarray(space.arrays.kind)
    is_number = ((kind == Kind.FLOAT) | (kind == Kind.INT))[None, :]

    def total(u: Array) -> tuple[Array, Array]:
        score = evaluate(jax.vmap(space.features)(u, jax.vmap(space.active)(u)))
        return jnp.sum(score), score

    def step(_: int, carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        u, score, slope, size = carry
        trial = jax.vmap(space.snap)(u + size[:, None] * slope)
        (_, trial_score), trial_slope = jax.value_and_grad(total, has_aux=True)(trial)
        is_blocked = ((trial <= 0.0) & (trial_slope < 0.0)) | ((trial >= 1.0) & (trial_slope > 0.0))
        trial_slope = jnp.where(is_number & ~is_blocked & jnp.isfinite(trial_slope), trial_slope, 0.0)
        steepest = jnp.max(jnp.abs(trial_slope), axis=1, keepdims=True)
        trial_slope = trial_slope / jnp.where(steepest > 0.0, steepest, 1.0)
        is_better = trial_score > score
        keep = is_better[:, None]
        return (
            jnp.where(keep, trial, u),
            jnp.where(is_better, trial_score, score),
            jnp.where(keep, trial_slope, slope),
            jnp.where(is_better, 1.5 * size, 0.4 * size),
        )

    # With no slope yet, the first step scores the start itself.
    lowest = jnp.full(u.shape[:1], -jnp.inf, u.dtype)
    start = (u, lowest, jnp.zeros_like(u), jnp.full_like(lowest, STEP))
    u, score, _, _ = jax.lax.fori_loop(0, CLIMB, step, start)
    return u, score
