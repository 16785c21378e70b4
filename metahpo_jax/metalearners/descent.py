"""Gradient descent on the mean loss of a batch of tasks: a meta-learner out of any hypergradient estimator and any optax optimiser."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from metahpo_jax.base import Array, HyperGrad, Key, MetaLearner, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.training import MetaMetrics

# Tasks differentiated together on a CPU where there are at least twice as many: the first number that divides theirs.
TASKS_AT_ONCE = (8, 7, 6, 5, 4)


class Slots(struct.PyTreeNode):
    """The episodes under way, one per task of a batch."""

    carry: PyTree  # `[tasks, ...]` of the estimator
    tasks: PyTree  # `[tasks, ...]`
    done: Array  # `[tasks]` bool: the next step begins a new episode
    failed: Array  # `[tasks]` bool: the last episode that ended did so by divergence


class DescentState(struct.PyTreeNode):
    """The `meta_state` of `descent`."""

    theta: PyTree
    opt_state: PyTree
    step: Array  # `[]` int32: meta-steps taken
    slots: PyTree = ()  # `Slots` of an estimator that goes window by window


def descent(
    hypergrad: HyperGrad,
    theta_init: Callable[[Key], PyTree],
    optimiser: optax.GradientTransformation,
    *,
    max_norm: float | None,
    tasks: PyTree = None,
    devices: Sequence[Any] | None = None,
) -> MetaLearner:
    """Gradient descent on the mean loss over a batch of tasks.

    A task whose loss or gradient is not finite is masked out before the mean, the norm and the clip; its episode ends. Where no task is
    finite, `theta` and the optimiser's state stay as they are.

    Args:
      hypergrad: the estimator. One that goes through an episode window by window keeps the episodes of its tasks between meta-steps; a task
        of the next batch takes the place of one whose episode is done. All episodes begin together; under `fit(batch=True)`, `init` runs in
        every meta-step, since lanes cannot branch apart.
      theta_init: draws the first `theta`.
      optimiser: of the library optax.
      max_norm: the mean gradient is scaled down to this global norm; None leaves it.
      tasks: a batch of tasks, of which only shapes and types count; needed by estimators that keep episodes.
      devices: share the tasks of a batch evenly; None for the one device that runs the rest.

    Raises:
      ConfigError: for a `max_norm` that is not positive; where `step` is traced, for tasks that the devices cannot share evenly, or without
        the `tasks` that an estimator needs.
    """
    if max_norm is not None and not max_norm > 0:
        raise ConfigError(f"descent: max_norm must be a positive number or None, got {max_norm}; 1.0 is usual.")

    def init(key: Key) -> DescentState:
        theta = theta_init(key)
        slots: PyTree = ()
        if tasks is not None:
            number = jax.tree.leaves(tasks)[0].shape[0]
            carry = jax.eval_shape(begin, jax.random.split(key, number), theta, tasks)
            if jax.tree.leaves(carry):
                empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (carry, jax.eval_shape(lambda: tasks)))
                slots = Slots(*empty, done=jnp.ones(number, bool), failed=jnp.zeros(number, bool))
        return DescentState(theta=theta, opt_state=optimiser.init(theta), step=jnp.zeros((), jnp.int32), slots=slots)

    def begin(keys: Key, theta: PyTree, task_batch: PyTree) -> PyTree:
        return jax.vmap(hypergrad.init, (0, None, 0))(keys, theta, task_batch)

    def seated(keys: Key, theta: PyTree, slots: Slots, task_batch: PyTree) -> tuple[PyTree, PyTree]:
        """Carries and tasks of the batch, new ones where an episode is done."""

        def fresh() -> tuple[PyTree, PyTree]:
            return begin(keys, theta, task_batch), task_batch

        def chosen() -> tuple[PyTree, PyTree]:
            def pick(new: Array, old: Array) -> Array:
                return jnp.where(slots.done.reshape(-1, *[1] * (new.ndim - 1)), new, old)

            return jax.tree.map(pick, fresh(), (slots.carry, slots.tasks))

        return jax.lax.cond(jnp.any(slots.done), chosen, lambda: (slots.carry, slots.tasks))

    def step(key: Key, meta_state: DescentState, task_batch: PyTree) -> tuple[DescentState, MetaMetrics]:
        theta, slots = meta_state.theta, meta_state.slots
        number = jax.tree.leaves(task_batch)[0].shape[0]
        init_keys, keys = jax.random.split(key, (2, number))
        if isinstance(slots, Slots):
            carry, task_batch = seated(init_keys, theta, slots, task_batch)
        else:
            carry = begin(init_keys, theta, task_batch)
            if jax.tree.leaves(carry):
                raise ConfigError(
                    "descent: this estimator keeps its episodes between steps; give an example batch as tasks."
                )
        estimates, carry = _over_tasks(hypergrad.step, devices or (), keys, theta, carry, task_batch)
        finite = jnp.isfinite(estimates.loss)
        for leaf in jax.tree.leaves(estimates.gradient):
            finite &= jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))
        if isinstance(slots, Slots):
            failed = ~finite | (slots.failed & ~estimates.done)
            slots = Slots(carry, task_batch, done=estimates.done | ~finite, failed=failed)
        gradient = _masked_mean(estimates.gradient, finite)
        norm = _global_norm(gradient)
        if max_norm is not None:
            # Divides first: max_norm / norm may be too small for the type.
            limit = jnp.asarray(max_norm, norm.dtype)
            gradient = jax.tree.map(lambda g: jnp.where(norm > limit, g / norm * limit, g).astype(g.dtype), gradient)
        updates, opt_state = optimiser.update(gradient, meta_state.opt_state, theta)
        usable = jnp.any(finite) & jnp.isfinite(norm)
        new_theta, opt_state = jax.tree.map(
            lambda new, old: jnp.where(usable, new, old),
            (optax.apply_updates(theta, updates), opt_state),
            (theta, meta_state.opt_state),
        )
        metrics = MetaMetrics(
            loss=jnp.where(jnp.any(finite), _masked_mean(estimates.loss, finite), jnp.nan),
            finite=jnp.sum(finite & ~slots.failed if isinstance(slots, Slots) else finite, dtype=jnp.int32),
            tasks=jnp.asarray(number, jnp.int32),
            gradient_norm=norm,
            info=_masked_mean(estimates.info, finite),
        )
        return DescentState(theta=new_theta, opt_state=opt_state, step=meta_state.step + 1, slots=slots), metrics

    return MetaLearner(init, step, lambda meta_state: meta_state.theta)


def _over_tasks(
    step: Callable[..., PyTree], devices: Sequence[Any], keys: Key, theta: PyTree, carry: PyTree, tasks: PyTree
) -> PyTree:
    """`step` for every task, on the device that has it."""
    if len(devices) < 2:
        return _in_chunks(step, keys, theta, carry, tasks)
    if len(keys) % len(devices):
        raise ConfigError(
            f"descent: {len(devices)} devices cannot share {len(keys)} tasks evenly; draw batches of a multiple of {len(devices)}."
        )

    def share(key_data: Array, theta: PyTree, carry: PyTree, tasks: PyTree) -> PyTree:
        return _in_chunks(step, jax.random.wrap_key_data(key_data), theta, carry, tasks)

    whole, split = PartitionSpec(), PartitionSpec("tasks")
    mesh = Mesh(np.asarray(devices), ("tasks",))
    spread = jax.shard_map(share, mesh=mesh, in_specs=(split, whole, split, split), out_specs=split, check_vma=False)
    return spread(jax.random.key_data(keys), theta, carry, tasks)


def _in_chunks(step: Callable[..., PyTree], keys: Key, theta: PyTree, carry: PyTree, tasks: PyTree) -> PyTree:
    """`vmap` over tasks, or over a few at a time."""
    size = at_once(len(keys))
    if size == len(keys):
        return jax.vmap(step, (0, None, 0, 0))(keys, theta, carry, tasks)
    return jax.lax.map(lambda one: step(one[0], theta, *one[1:]), (keys, carry, tasks), batch_size=size)


def at_once(tasks: int) -> int:
    """How many of so many tasks are differentiated together: on a CPU a few, so that what they touch stays in cache."""
    sizes = [size for size in TASKS_AT_ONCE if tasks % size == 0 and tasks >= 2 * TASKS_AT_ONCE[0]]
    return sizes[0] if sizes and jax.default_backend() == "cpu" else tasks


def _masked_mean(tree: PyTree, mask: Array) -> PyTree:
    """Mean over the leading axis where `mask [tasks]` holds, 0 where it holds nowhere. It divides first: sums
    overflow."""

    def mean(leaf: Array) -> Array:
        kept = mask.reshape(mask.shape + (1,) * (leaf.ndim - 1))
        dtype = leaf.dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else jnp.float32
        count = jnp.maximum(jnp.sum(mask), 1).astype(dtype)
        return jnp.sum(jnp.where(kept, leaf.astype(dtype) / count, 0), axis=0, dtype=dtype)

    return jax.tree.map(mean, tree)


def _global_norm(tree: PyTree) -> Array:
    """Square root of the sum of squares, scaled by the largest entry: the square of 1e20 is infinite in float32."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf), initial=0.0) for leaf in jax.tree.leaves(tree)]))
    safe = jnp.where(largest > 0, largest, 1)
    return safe * optax.tree.norm(jax.tree.map(lambda leaf: leaf / safe.astype(leaf.dtype), tree))
