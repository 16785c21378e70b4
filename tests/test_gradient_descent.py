"""Networks under gradient descent: every hyperparameter's derivative is that of what the training really does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metahpo_jax.errors import ConfigError, SpaceError
from metahpo_jax.hypergrad import (
    SPACE,
    Theta,
    checkpointed,
    classifier,
    forward,
    gradient_descent,
    regressor,
    relative,
    reverse,
)
from metahpo_jax.hypergrad.inner import episode
from metahpo_jax.spaces import Choice, Float, Free, Int, Space
from metahpo_jax.tasks.base import Split, Task

CONFIG = {
    "learning_rate": 0.05, "weight_decay": 1e-3, "momentum": 0.7, "label_smoothing": 0.05, "gaussian_dropout": 0.3, "data_noise": 0.2,
}  # fmt: skip


def make_task(dtype: type = np.float64) -> Task:
    """Three real features of four and three classes of five; the last rows of each split are padding."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 4)) * np.asarray([1, 1, 1, 0])
    y = np.argmax(x[:, :3] + 0.3 * rng.standard_normal((60, 3)), 1)

    def split(rows):
        return Split(
            jnp.asarray(np.concatenate([x[rows], np.zeros((4, 4))]), dtype),
            jnp.asarray(np.concatenate([y[rows], np.zeros(4, int)]), jnp.int32),
            jnp.asarray(20, jnp.int32),
        )

    none = jnp.zeros(0, dtype)
    return Task(
        train=split(slice(0, 20)), valid=split(slice(20, 40)), test=split(slice(40, 60)), class_mask=jnp.arange(5) < 3,
        n_features=jnp.asarray(3, jnp.int32), prior_entropy=jnp.asarray(1.1, dtype), descriptor=none, descriptor_mask=none > 0,
    )  # fmt: skip


def space_of(*names: str) -> Free:
    return Free(Space.of({name: SPACE[name] for name in names}))


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("batch", [None, 8])
def test_every_hyperparameter_has_the_derivative_that_differences_show(x64, key, optimiser, batch):
    free = Free(SPACE)
    if optimiser == "adam":
        free = space_of(*(name for name in SPACE if name != "momentum"))  # Adam has its own
    inner = gradient_descent(classifier(1, 6, batch=batch, noisy=True), free, steps=8, optimiser=optimiser)
    task, theta = make_task(), Theta(free.encode({name: CONFIG[name] for name in free.space}, np.float64))
    found = jax.jit(forward(inner).step)(key, theta, (), task)[0]
    value = jax.jit(lambda z: reverse(inner).step(key, Theta(z), (), task)[0].loss)
    for name in free.space:
        up, down = (value({**theta.z, name: theta.z[name] + sign * 1e-5}) for sign in (1, -1))
        assert abs(up - down) > 1e-9, f"nothing to compare: {name}"
        np.testing.assert_allclose(found.gradient.z[name], (up - down) / 2e-5, rtol=1e-5, err_msg=name)
    np.testing.assert_allclose(found.loss, value(theta.z), rtol=1e-12)


@pytest.mark.parametrize("horizon", [5, 50])
def test_exact_estimators_equal_central_differences_over_seeds(x64, horizon):
    """Every hyperparameter of the library's own training, minibatches and noise included, on 20 seeds."""
    free, task = Free(SPACE), make_task()
    inner = gradient_descent(classifier(1, 6, batch=8, noisy=True), free, steps=horizon)
    theta, keys = Theta(free.encode(CONFIG, np.float64)), jax.random.split(jax.random.key(horizon), 20)
    value = jax.jit(jax.vmap(lambda key, z: episode(inner, key, Theta(z), task)[0], (0, None)))
    h = 1e-5
    differences = {
        name: (value(keys, {**theta.z, name: theta.z[name] + h}) - value(keys, {**theta.z, name: theta.z[name] - h}))
        / (2 * h)
        for name in free.space
    }
    for estimator in (reverse(inner), checkpointed(inner), forward(inner)):
        found = jax.jit(jax.vmap(lambda key, e=estimator: e.step(key, theta, (), task)[0]))(keys)
        for name, expected in differences.items():
            # A derivative that happens to be small has the rounding of its neighbours.
            scale = np.abs(expected) + 1e-2 * np.median(np.abs(expected))
            assert (np.abs(found.gradient.z[name] - expected) / scale).max() < 1e-6, name


@pytest.mark.parametrize("name", ["gaussian_dropout", "data_noise"])
def test_the_gradient_of_a_noise_scale_is_that_of_the_expected_loss(x64, name):
    """Against differences with noise of their own: under the same key they would agree with a wrong derivative as well."""
    free = space_of(name)
    inner = gradient_descent(classifier(1, 4, noisy=True), free, steps=2, fixed={"learning_rate": 0.5, "momentum": 0.5})
    task, z, h, keys = make_task(), free.encode({name: 0.4}, np.float64), 0.15, 100_000

    def both(key):
        up, down = jax.random.split(jax.random.fold_in(key, 1))

        def loss(key, shift):
            moved = {name: z[name] + shift}
            # The initial weights are those of all keys: noise alone differs.
            state = inner.init(jax.random.key(7), Theta(moved), task)
            for i in range(2):
                state = inner.step(jax.random.fold_in(key, i), Theta(moved), state, task, jnp.asarray(i))
            return inner.loss(key, Theta(moved), state, task)

        slope = jax.jvp(lambda shift: loss(key, shift), (0.0,), (1.0,))[1]
        return slope, (loss(up, h) - loss(down, -h)) / (2 * h)

    slopes, differences = jax.jit(lambda keys: jax.lax.map(both, keys, batch_size=500))(
        jax.random.split(jax.random.key(0), keys)
    )
    error = np.sqrt((np.var(slopes) + np.var(differences)) / keys)
    assert abs(np.mean(slopes)) > 5 * error, "nothing to compare"
    assert abs(np.mean(slopes) - np.mean(differences)) < 3 * error


@pytest.mark.parametrize("per", ["layer", "step", "layer and step", "parameter"])
def test_learning_rates_of_parts_add_up_to_that_of_all(x64, key, per):
    free, steps, task = space_of("learning_rate"), 5, make_task()
    problem = classifier(2, 5)
    shape = {"layer": (3,), "step": (steps,), "layer and step": (steps, 3), "parameter": (4 * 5 + 5 + 30 + 30,)}[per]
    z = free.encode({"learning_rate": 0.3}, np.float64)

    def gradient(z, **settings):
        inner = gradient_descent(problem, free, steps=steps, fixed={"momentum": 0.5}, **settings)
        return jax.jit(reverse(inner).step)(key, Theta(z), (), task)[0]

    together = gradient(z)
    apart = gradient({"learning_rate": jnp.full(shape, z["learning_rate"])}, per=per)
    np.testing.assert_allclose(apart.loss, together.loss, rtol=1e-12)
    assert apart.gradient.z["learning_rate"].shape == shape
    np.testing.assert_allclose(
        jnp.sum(apart.gradient.z["learning_rate"]), together.gradient.z["learning_rate"], rtol=1e-9
    )


def test_first_order_takes_the_way_for_the_identity(x64, key):
    free, task, problem = space_of("learning_rate"), make_task(), classifier(1, 5)
    z, weights = free.encode({"learning_rate": 0.1}, np.float64), problem.init(key, task)
    found = {}
    for first_order in (True, False):
        inner = gradient_descent(problem, free, steps=4, first_order=first_order)
        found[first_order] = jax.jit(reverse(inner).step)(key, Theta(z, weights), (), task)[0].gradient
    inner = gradient_descent(problem, free, steps=4)
    state, step_key = inner.init(key, Theta(z, weights), task), jax.random.split(key, 3)[1]
    for i in range(4):
        state = inner.step(jax.random.fold_in(step_key, i), Theta(z, weights), state, task, jnp.asarray(i))
    at_the_end = jax.grad(problem.valid_loss)(state.weights, task)
    for a, b, c in zip(*map(jax.tree.leaves, (found[True].weights, at_the_end, found[False].weights)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-15)
        assert not np.allclose(b, c, rtol=1e-3)


def test_adam_has_a_finite_metagradient_where_gradients_are_zero(key):
    """The padded feature and dead ReLUs have gradients of exactly zero, where a root has no derivative."""
    free = space_of("learning_rate", "weight_decay")
    inner = gradient_descent(classifier(1, 6, activation="relu"), free, steps=6, optimiser="adam")
    z = free.encode({"learning_rate": 0.1, "weight_decay": 1e-4})
    for estimator in (reverse, forward):
        gradient = jax.jit(estimator(inner).step)(key, Theta(z), (), make_task(np.float32))[0].gradient
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_padding_does_nothing(x64, key):
    task, problem = make_task(), classifier(1, 5)
    stack = problem.init(key, task)
    values = {name: jnp.asarray(0.1) for name in SPACE}
    spoiled = task.replace(
        train=task.train.replace(x=task.train.x.at[20:].set(9.0), y=task.train.y.at[20:].set(2)),
        valid=task.valid.replace(x=task.valid.x.at[20:].set(9.0)),
    )
    assert problem.train_loss(key, stack, task, values) == problem.train_loss(key, stack, spoiled, values)
    assert problem.valid_loss(stack, task) == problem.valid_loss(stack, spoiled)
    slope = jax.grad(problem.train_loss, argnums=1)(key, stack, task, values)
    assert not slope[0][0][:, 3].any() and not slope[-1][0][3:].any() and not slope[-1][1][3:].any()


def test_a_regressor_is_the_network_that_numpy_computes(x64, key):
    problem = regressor((1, 8, 8, 1))
    x = jnp.linspace(-1, 1, 7)[:, None]
    stack = problem.init(key, ((x, x), (x, x)))
    hidden = np.asarray(x)
    for weights, biases in stack[:-1]:
        hidden = np.maximum(hidden @ np.asarray(weights).T + np.asarray(biases)[None, :], 0)
    out = hidden @ np.asarray(stack[-1][0]).T + np.asarray(stack[-1][1])[None, :]
    np.testing.assert_allclose(problem.valid_loss(stack, ((x, x), (x, x + 1))), np.mean((out - x - 1) ** 2), rtol=1e-12)


# --- free numbers ---


@given(st.floats(1e-3, 0.999), st.floats(1e-3, 0.999))
def test_free_numbers_stand_for_the_values_that_made_them(u, v):
    space = Space(rate=Float(1e-4, 1.0, log=True), share=Float(-2.0, 5.0))
    free, config = Free(space), space.decode([u, v])
    z = free.encode(config)
    for name, value in free.decode(z).items():
        np.testing.assert_allclose(value, config[name], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(list(free.config(z).values()), list(config.values()), rtol=1e-4, atol=1e-5)


def test_free_numbers_keep_to_the_bounds_and_have_a_value_for_each_part():
    free = Free(Space(rate=Float(1e-4, 1.0, log=True)))
    values = free.decode({"rate": jnp.asarray([[-50.0, 0.0, 50.0]])})["rate"]
    np.testing.assert_allclose(values, [[1e-4, 1e-2, 1.0]], rtol=1e-5)
    assert np.isfinite(free.encode({"rate": 1.0})["rate"])


def idle(name, **settings):
    gradient_descent(classifier(1, 2), space_of("learning_rate", name), steps=1, **settings)


def short_of_a_rate():
    inner = gradient_descent(classifier(1, 2), space_of("learning_rate"), steps=3, per="step")
    inner.init(jax.random.key(0), Theta({"learning_rate": jnp.zeros(2, jnp.float32)}), make_task(np.float32))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: Free(Space(depth=Int(1, 3))), ConfigError, r"'depth' .* has no derivative: .*full_es"),
        (lambda: Free(Space(kind=Choice("a", "b"))), ConfigError, "'kind' .* has no derivative"),
        (lambda: Free(Space(a=Choice(1, 2), b=Float(0, 1, when={"a": 1}))), ConfigError, "'a' .* has no derivative"),
        (lambda: Free(SPACE).decode({"rate": jnp.zeros(())}), SpaceError, "expected learning_rate, .* got rate"),
        (lambda: gradient_descent(classifier(1, 2), Free(Space(dropout=Float(0, 1))), steps=1), ConfigError, "Bernoulli dropout .*full_es"),
        (lambda: gradient_descent(classifier(1, 2), space_of("momentum"), steps=1), ConfigError, "expected a learning_rate"),
        (lambda: idle("data_noise"), ConfigError, "data_noise changes nothing here"),
        (lambda: idle("label_smoothing", first_order=True), ConfigError, "label_smoothing changes nothing here, .* first-order gradients"),
        (lambda: idle("momentum", optimiser="adam"), ConfigError, "momentum changes nothing here, .* momentum needs sgd"),
        (lambda: short_of_a_rate(), ConfigError, r"per step must have shape \(3,\), got \(2,\)"),
        (lambda: gradient_descent(classifier(1, 2), space_of("learning_rate"), steps=0), ConfigError, "steps must be at least 1, got 0"),
        (lambda: classifier(1, 0), ConfigError, "positive width"),
        (lambda: regressor((1, 4, 1), activation="cube"), ConfigError, "'cube'"),
    ],
)  # fmt: skip
def test_what_has_no_derivative_is_refused_with_what_to_do(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()


def test_what_is_fixed_in_vain_is_refused() -> None:
    with pytest.raises(ConfigError, match="a fixed data_noise changes nothing here"):
        gradient_descent(classifier(1, 4), None, steps=2, fixed={"learning_rate": 0.1, "data_noise": 0.3})
    with pytest.raises(ConfigError, match="a fixed momentum changes nothing here"):
        gradient_descent(
            classifier(1, 4), None, steps=2, fixed={"learning_rate": 0.1, "momentum": 0.9}, optimiser="adam"
        )
    with pytest.raises(ConfigError, match="one learning rate is fixed, so there are none per layer"):
        gradient_descent(classifier(1, 4), None, steps=2, fixed={"learning_rate": 0.1}, per="layer")


def test_relative_losses_are_in_units_of_the_prior_entropy(key) -> None:
    task, problem = make_task(np.float32), classifier(1, 4)
    weights = problem.init(key, task)
    plain = problem.valid_loss(weights, task)
    np.testing.assert_allclose(relative(problem).valid_loss(weights, task), plain / 1.1, rtol=1e-6)
    told = problem._replace(valid_loss=lambda weights, task: (plain, {"seen": 3}))
    found, info = relative(told).valid_loss(weights, task)
    np.testing.assert_allclose(found, plain / 1.1, rtol=1e-6)
    assert info == {"seen": 3}
