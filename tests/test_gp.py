"""The Gaussian-process core against scikit-learn and finite differences, and the surrogate on hostile histories."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from metahpo_jax.base import Status
from metahpo_jax.history import History, empty
from metahpo_jax.spaces import Float, Space
from metahpo_jax.surrogates import Model, Parameters, exact, gp, linalg, matern52, squared_exponential
from metahpo_jax.surrogates.precision import in_float64
from metahpo_jax.surrogates.targets import as_told, gaussian_rank, half_rank, standardise, told

KERNELS = [matern52, squared_exponential]
# Compiled once for each shape: eagerly, every operation would be compiled by itself.
condition_on = jax.jit(exact.condition_on, static_argnums=0)
predict = jax.jit(exact.predict, static_argnums=0)
append = jax.jit(exact.append, static_argnums=0)
likelihood = jax.jit(exact.log_marginal_likelihood, static_argnames="model")
likelihood_and_slope = jax.jit(jax.value_and_grad(exact.log_marginal_likelihood), static_argnames="model")
SPACE = Space(a=Float(0.0, 1.0), b=Float(0.0, 1.0))


def problem(n=6, capacity=8, features=3, dtype=np.float64, seed=0):
    """Parameters, points `[capacity, features]`, targets and a mask with holes; masked rows hold NaN."""
    rng = np.random.default_rng(seed)
    mask = np.zeros(capacity, bool)
    mask[rng.choice(capacity, n, replace=False)] = True
    x = np.where(mask[:, None], rng.random((capacity, features)), np.nan)
    y = np.where(mask, np.sin(4 * np.nan_to_num(x)).sum(1), np.nan)
    params = Parameters(
        log_lengthscale=jnp.asarray(np.log(rng.uniform(0.3, 1.5, features))),
        log_outputscale=jnp.asarray(0.4),
        log_noise=jnp.asarray(-5.0),
        constant=jnp.asarray(0.3),
    )
    return (
        jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params),
        jnp.asarray(x, dtype),
        jnp.asarray(y, dtype),
        mask,
    )


def history_of(u, loss, status=None, capacity=8) -> History:
    """A history of told rows at `u [n, 2]`."""
    n = len(loss)
    h = empty(capacity, 2)
    status = jnp.full((n,), int(Status.OK), jnp.int32) if status is None else jnp.asarray(status, jnp.int32)
    return h.replace(
        trial=h.trial.at[:n].set(jnp.arange(n, dtype=jnp.int32)),
        u=h.u.at[:n].set(jnp.asarray(u, jnp.float32).reshape(n, 2)),
        active=h.active.at[:n].set(True),
        loss=h.loss.at[:n].set(jnp.asarray(loss, jnp.float32)),
        status=h.status.at[:n].set(status),
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-8), (np.float32, 1e-4)])
def test_agrees_with_scikit_learn(kernel, dtype, tolerance, x64):
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    params, x, y, mask = problem(dtype=dtype)
    model = Model(kernel=kernel)
    lengthscale: Any = np.exp(np.asarray(params.log_lengthscale, np.float64))
    shape = kernels.Matern(lengthscale, nu=2.5) if kernel is matern52 else kernels.RBF(lengthscale)
    oracle: Any = GaussianProcessRegressor(
        kernels.ConstantKernel(np.exp(float(params.log_outputscale))) * shape,
        alpha=np.exp(float(params.log_noise)),
        optimizer=cast(str, None),  # its annotation forgets that None stands for no fit
    )
    constant = float(params.constant)
    oracle.fit(np.asarray(x, np.float64)[mask], np.asarray(y, np.float64)[mask] - constant)
    new = np.random.default_rng(1).random((4, 3))
    mean, deviation = oracle.predict(new, return_std=True)

    posterior = condition_on(model, params, x, y, jnp.asarray(mask))
    ours_mean, ours_variance = predict(model, posterior, jnp.asarray(new, dtype))
    assert ours_mean.dtype == ours_variance.dtype == dtype
    np.testing.assert_allclose(ours_mean, mean + constant, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours_variance, deviation**2, rtol=tolerance, atol=tolerance)
    value = likelihood(params, x, y, jnp.asarray(mask), model=model)
    np.testing.assert_allclose(value, oracle.log_marginal_likelihood_value_, rtol=tolerance)
    assert posterior.jitter == 0.0


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient_of_the_marginal_likelihood(kernel, x64):
    params, x, y, mask = problem()
    flat, unravel = ravel_pytree((params, jnp.where(mask[:, None], x, 0.5)))

    @jax.jit
    def value(flat):
        params, x = unravel(flat)
        return exact.log_marginal_likelihood(params, x, y, jnp.asarray(mask), model=Model(kernel=kernel))

    step = 1e-5
    eye = jnp.eye(flat.size)
    numeric = jax.vmap(lambda e: (value(flat + step * e) - value(flat - step * e)) / (2 * step))(eye)
    gradient = jax.grad(value)(flat)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-6 * float(jnp.max(jnp.abs(gradient))))
    forward = jax.jvp(value, (flat,), (jnp.ones_like(flat),))[1]
    np.testing.assert_allclose(forward, jnp.sum(gradient), rtol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
def test_kernels_are_smooth_at_distance_zero(kernel, x64):
    x = jnp.asarray([[0.2, 0.4], [0.2, 0.4], [0.9, 0.1]])
    params = Parameters(jnp.zeros(2), jnp.zeros(()), jnp.asarray(-5.0), jnp.zeros(()))
    slope = jax.jit(jax.grad(lambda x: jnp.sum(exact.covariance(Model(kernel=kernel), params, x, x))))
    assert np.isfinite(slope(x)).all()
    slope = jax.jit(jax.grad(kernel))
    np.testing.assert_allclose(slope(jnp.zeros(())), (kernel(jnp.asarray(1e-7)) - 1.0) / 1e-7, rtol=1e-3)


@pytest.mark.parametrize("n", [0, 1, 6])
def test_padding_contributes_nothing(n, x64):
    params, x, y, mask = problem(n=n, capacity=max(n, 1))
    order = np.argsort(~mask, kind="stable")[:n]
    many = 11 - max(n, 1)  # not a power of two
    wide_x, wide_y = (
        jnp.pad(x, ((many, 0), (0, 0)), constant_values=jnp.nan),
        jnp.pad(y, (many, 0), constant_values=jnp.nan),
    )
    wide_mask = jnp.pad(jnp.asarray(mask), (many, 0))
    new = jnp.asarray(np.random.default_rng(1).random((4, 3)))

    tight = condition_on(Model(), params, x[order], y[order], jnp.ones(n, bool)) if n else None
    wide = condition_on(Model(), params, wide_x, wide_y, wide_mask)
    mean, variance = predict(Model(), wide, new)
    if tight is None:
        np.testing.assert_allclose(mean, np.full(4, float(params.constant)))
        np.testing.assert_allclose(variance, np.exp(np.full(4, float(params.log_outputscale))))
        assert likelihood(params, wide_x, wide_y, wide_mask) == 0.0
        return
    tight_mean, tight_variance = predict(Model(), tight, new)
    np.testing.assert_allclose(mean, tight_mean, rtol=1e-12)
    np.testing.assert_allclose(variance, tight_variance, rtol=1e-11)
    padded = likelihood_and_slope(params, wide_x, wide_y, wide_mask)
    plain = likelihood_and_slope(params, x[order], y[order], jnp.ones(n, bool))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), padded, plain)


def test_vmap_is_the_loop(x64):
    lanes = [problem(n=n, seed=n) for n in (1, 5, 8)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)
    new = jnp.asarray(np.random.default_rng(1).random((4, 3)))

    @jax.jit
    def run(params, x, y, mask):
        posterior = condition_on(Model(), params, x, y, mask)
        return exact.log_marginal_likelihood(params, x, y, mask), predict(Model(), posterior, new)

    together = jax.jit(jax.vmap(run))(*stacked)
    for i, lane in enumerate(lanes):
        alone = run(*lane[:3], jnp.asarray(lane[3]))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-10), together, alone)


def test_appending_is_refitting(x64):
    params, x, y, mask = problem(n=6)
    last = int(np.flatnonzero(mask)[-1])
    partial = condition_on(Model(), params, x, y, jnp.asarray(mask).at[last].set(False), shift=2.0, scale=3.0)
    grown = append(Model(), partial, x[last], 2.0 + 3.0 * y[last])
    whole = condition_on(Model(), params, x, y, jnp.asarray(mask), shift=2.0, scale=3.0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), grown, whole)

    full = append(Model(), append(Model(), whole, x[last] + 0.1, y[last]), x[last] - 0.1, y[last])
    assert bool(full.mask.all())
    jax.tree.map(np.testing.assert_array_equal, append(Model(), full, x[last], y[last]), full)


def test_joint_samples_have_the_posterior_moments(x64):
    params, x, y, mask = problem(n=4)
    posterior = condition_on(Model(), params, x, y, jnp.asarray(mask), shift=1.0, scale=2.0)
    new = jnp.asarray([[0.1, 0.2, 0.3], [0.15, 0.2, 0.3], [0.9, 0.9, 0.1]])
    draws = jax.jit(jax.vmap(lambda k: exact.sample(Model(), k, posterior, new)))(
        jax.random.split(jax.random.key(0), 20_000)
    )
    mean, variance = predict(Model(), posterior, new)
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * float(jnp.sqrt(variance.max() / 20_000)))
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.06)
    assert np.corrcoef(draws.T)[0, 1] > 0.9  # neighbours move together


def test_lower_inverse(x64):
    for n in (1, 5, 16):
        root = np.tril(np.random.default_rng(n).normal(size=(n, n))) + 4 * np.eye(n)
        np.testing.assert_allclose(
            jax.jit(linalg.lower_inverse)(jnp.asarray(root)), np.linalg.inv(root), rtol=1e-9, atol=1e-12
        )


@pytest.mark.parametrize("smallest, rung", [(1e-4, 0.0), (-1e-7, 1e-6), (-5e-5, 1e-4), (-5e-4, 1e-3), (-0.5, np.inf)])
def test_jitter_ladder(smallest, rung, x64):
    k = jnp.diag(jnp.asarray([1.0, 1.0, 2.0 - smallest, smallest]))  # the mean of the diagonal is 1
    chol, jitter = jax.jit(jax.vmap(linalg.factorise))(jnp.stack([k, jnp.eye(4)]))
    np.testing.assert_allclose(jitter, [rung, 0.0], rtol=1e-9)
    assert np.isfinite(chol).all()
    if np.isfinite(rung):
        np.testing.assert_allclose(chol[0] @ chol[0].T, k + rung * jnp.eye(4), atol=1e-12)
    else:
        assert linalg.gaussian_log_density(k, jnp.ones(4)) == -jnp.inf


def test_a_matrix_of_nan_is_flagged(x64):
    chol, jitter = linalg.factorise(jnp.full((3, 3), jnp.nan))
    assert np.isinf(jitter) and np.isfinite(chol).all()


@pytest.mark.parametrize("nesting", ["plain", "jit", "vmap", "scan", "vmap of scan", "vmap of vmap of scan"])
def test_float64_inside_float32_programs(nesting):
    def gap(x, y):
        """In float32, `x + y` is `x` and the gap 0."""
        return (jnp.broadcast_to(x + y, (2, 2)) @ jnp.eye(2, dtype=x.dtype))[0, 0] - x

    lifted = in_float64(gap)
    over = lambda x, y: jax.lax.scan(lambda c, v: (c, lifted(c, v)), x, y)[1]  # noqa: E731
    one, tiny = jnp.ones((), jnp.float32), jnp.full((2,), 1e-9, jnp.float32)
    result = {
        "plain": lambda: lifted(one, tiny[0]),
        "jit": lambda: jax.jit(lifted)(one, tiny[0]),
        "vmap": lambda: jax.jit(jax.vmap(lifted, in_axes=(None, 0)))(one, tiny),
        "scan": lambda: jax.jit(over)(one, tiny),
        "vmap of scan": lambda: jax.jit(jax.vmap(over))(jnp.ones(3, jnp.float32), jnp.tile(tiny, (3, 1))),
        "vmap of vmap of scan": lambda: jax.vmap(jax.vmap(over, in_axes=(None, 0)), in_axes=(0, None))(
            jnp.ones(3, jnp.float32), jnp.tile(tiny, (4, 1))
        ),
    }[nesting]()
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, np.full(result.shape, 1e-9), rtol=1e-6)


@pytest.mark.parametrize("squash", [as_told, half_rank, gaussian_rank])
@pytest.mark.parametrize("scale", [1.0, 1e12, 1e-12])
def test_squashing_keeps_the_order(squash, scale):
    y = jnp.asarray([3.0, -1.0, 2.0, 2.0, 1e4, 2.5, 0.0, 99.0], jnp.float32) * scale
    mask = jnp.asarray([True] * 7 + [False])
    out = squash(y, mask)
    assert out.dtype == jnp.float32 and np.isfinite(out).all()
    assert np.array_equal(np.sign(y[:7, None] - y[None, :7]), np.sign(out[:7, None] - out[None, :7]))
    without = squash(jnp.where(mask, y, jnp.nan), mask)
    np.testing.assert_array_equal(out, without)


def test_half_rank_keeps_the_good_half_and_tames_the_bad():
    y = jnp.asarray([0.0, 1.0, 2.0, 1e6, 1e30], jnp.float32)
    out = half_rank(y, jnp.ones(5, bool))
    np.testing.assert_array_equal(out[:3], y[:3])
    assert out[4] < 10.0


def test_standardise():
    y = np.random.default_rng(0).normal(3.0, 2.0, 16).astype(np.float32)
    mask = np.arange(16) < 11
    for unit in (1.0, 1e12, 1e-12):
        out, shift, scale = standardise(jnp.asarray(y * np.float32(unit)), jnp.asarray(mask))
        np.testing.assert_allclose([out[:11].mean(), out[:11].std()], [0.0, 1.0], atol=1e-5)
        np.testing.assert_allclose([shift, scale], [y[:11].mean() * unit, y[:11].std() * unit], rtol=1e-5)


def test_failures_count_as_the_worst_told():
    status = [Status.OK, Status.DIVERGED, Status.FAILED, Status.STOPPED, Status.PENDING]
    history = history_of(np.random.rand(5, 2), [1.0, np.nan, np.inf, 3.0, np.nan], status)
    loss, mask = told(history)
    np.testing.assert_array_equal(loss[:5], [1.0, 3.0, 3.0, 3.0, 0.0])
    np.testing.assert_array_equal(mask, [True] * 4 + [False] * 4)
    only_failures = history_of(np.random.rand(2, 2), [np.nan, np.nan], [Status.DIVERGED, Status.FAILED])
    assert not told(only_failures)[1].any()


@pytest.fixture(scope="module")
def surrogate():
    """The fitted surrogate, compiled once for histories of capacity 8, and its context."""
    model = gp(SPACE, squash=as_told)
    context = SPACE.context(budget=8)
    fit = jax.jit(lambda params, history: model.fit(jax.random.key(0), params, history, context))
    return model._replace(fit=fit, predict=jax.jit(model.predict), sample=jax.jit(model.sample)), model.init(
        jax.random.key(0), context
    )


U = np.random.default_rng(3).random((6, 2))
SMOOTH = np.sin(5 * U[:, 0])  # does not depend on the second coordinate
DEGENERATE = {
    "nothing": (U[:0], []),
    "one": (U[:1], [3.0]),
    "two equal points": (U[[0, 0]], [1.0, 1.0]),
    "duplicates that disagree": (U[[0, 0, 0, 1]], [1.0, 2.0, 3.0, 0.0]),
    "all at one point": (U[[0] * 6], SMOOTH),
    "constant": (U, [7.0] * 6),
    "constant and huge": (U, [7e12] * 6),
    "huge": (U, SMOOTH * 1e12),
    "tiny": (U, SMOOTH * 1e-12),
    "huge offset": (U, 1e6 + SMOOTH),
    "outlier": (U, [0.1, 0.2, 0.3, 0.4, 0.5, 1e30]),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_histories_give_finite_predictions(case, surrogate):
    model, params = surrogate
    u, loss = DEGENERATE[case]
    posterior = model.fit(params, history_of(u, loss))
    grid = jnp.asarray(np.random.default_rng(0).random((5, 2)), jnp.float32)
    mean, variance = model.predict(posterior, jnp.concatenate([grid, jnp.asarray(U, jnp.float32)]))
    for leaf in (mean, variance, model.sample(jax.random.key(1), posterior, grid), *jax.tree.leaves(posterior.params)):
        assert leaf.dtype == jnp.float32
        assert np.isfinite(leaf).all(), case
    assert (variance > 0).all()
    assert np.isfinite(posterior.jitter)
    if len(loss):
        # Far from the data the mean goes back to about the average.
        assert mean.min() >= min(loss) - 3 * np.ptp(loss) - 1e-3 * abs(min(loss)) - 1.0


def test_the_fit_finds_what_matters(surrogate):
    model, params = surrogate
    posterior = model.fit(params, history_of(U, SMOOTH))
    lengthscale = np.exp(posterior.params.log_lengthscale)
    assert lengthscale[0] < 0.7 * lengthscale[1]
    mean, _ = model.predict(posterior, jnp.asarray(U, jnp.float32))
    np.testing.assert_allclose(mean, SMOOTH, atol=0.1)

    x, mask = jnp.asarray(U, jnp.float32), jnp.ones(6, bool)
    y, _, _ = standardise(jnp.asarray(SMOOTH, jnp.float32), mask)
    assert likelihood(posterior.params, x, y, mask) > likelihood(params, x, y, mask)


def test_the_fit_does_not_depend_on_units_or_on_bad_warm_starts(surrogate):
    model, params = surrogate
    plain = model.fit(params, history_of(U, SMOOTH))
    scaled = model.fit(params, history_of(U, SMOOTH * 1e12))
    bad = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), params)
    restarted = model.fit(bad, history_of(U, SMOOTH))
    for other in (scaled, restarted):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), plain.params, other.params)


def test_a_failed_row_is_avoided_and_changes_no_finiteness(surrogate):
    model, params = surrogate
    status = [Status.OK] * 5 + [Status.DIVERGED]
    posterior = model.fit(params, history_of(U, [*SMOOTH[:5], np.nan], status))
    mean, variance = model.predict(posterior, jnp.asarray(U, jnp.float32))
    assert np.isfinite(mean).all() and np.isfinite(variance).all()
    assert mean[5] > np.mean(SMOOTH[:5])


def test_fits_under_vmap_of_scan_equal_the_loop(surrogate):
    model, params = surrogate
    batched = gp(SPACE, squash=as_told)
    context = SPACE.context(budget=8)
    lanes = [history_of(U, SMOOTH), history_of(U[:3], [1.0, 2.0, 0.0])]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)

    def twice(history):
        def refit(params, _):
            posterior = batched.fit(jax.random.key(0), params, history, context)
            return posterior.params, posterior.params

        return jax.lax.scan(refit, params, jnp.arange(2))[1]

    together = jax.jit(jax.vmap(twice))(stacked)
    for i, history in enumerate(lanes):
        first = model.fit(params, history).params
        second = model.fit(first, history).params
        for j, alone in enumerate((first, second)):
            jax.tree.map(lambda a, b, i=i, j=j: np.testing.assert_allclose(a[i, j], b, atol=1e-4), together, alone)


def test_learned_means_and_embeddings_fit_the_core(x64):
    """A mean and a kernel input that depend on weights in `params.network`, differentiated through the likelihood."""
    params, x, y, mask = problem()
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)))
    params = params.replace(network=weights)
    model = Model(mean=lambda p, x: jnp.sum(x @ p.network, axis=1), embed=lambda p, x: jnp.tanh(x @ p.network))
    _, gradient = likelihood_and_slope(params, x, y, jnp.asarray(mask), model=model)
    assert np.isfinite(gradient.network).all() and float(jnp.abs(gradient.network).max()) > 0
    posterior = condition_on(model, params, x, y, jnp.asarray(mask))
    far = jnp.full((1, 3), 1e3)  # the embedding saturates: only the mean is left to differ
    mean, _ = predict(model, posterior, far)
    assert abs(float(mean[0]) - float(jnp.sum(far @ weights))) < 100.0


@pytest.mark.parametrize("n", [1, 16, 17, 40])
def test_many_points_at_once_are_predicted_as_few_are(n: int) -> None:
    """A large pool sees the posterior cut to what was observed: the same numbers to rounding."""
    with jax.enable_x64(True):
        params, x, y, mask = problem(n=n, capacity=64)
        posterior = condition_on(Model(), params, x, y, mask)
        points = np.random.default_rng(3).random((exact.MANY, x.shape[1]))
        mean, variance = predict(Model(), posterior, points)
        half = exact.MANY // 2
        few = [predict(Model(), posterior, part) for part in (points[:half], points[half:])]
    np.testing.assert_allclose(mean, np.concatenate([m for m, _ in few]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(variance, np.concatenate([v for _, v in few]), rtol=1e-8, atol=1e-12)
