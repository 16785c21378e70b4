"""The nouns of the library as types: records are pytrees, protocols are bundles of pure functions.

Everything is written for one task, one seed and one configuration; the caller vmaps. Shapes stand in backticks. `D` is the number of
hyperparameters of a space, `F` the number of model features, `n` the number of candidates of a pool, `m` of task descriptors.
"""

import enum
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
Key = jax.Array  # a typed key of `jax.random.key`
PyTree = Any


class Status(enum.IntEnum):
    """What became of a trial. Failure is data: only `OK` rows are ever fitted, averaged or ranked."""

    EMPTY = 0  # a padded row
    PENDING = 1  # asked for, not told yet
    OK = 2
    DIVERGED = 3  # the loss became NaN, infinite or larger than the learner's cap
    FAILED = 4  # the objective raised, hung or returned no number
    STOPPED = 5  # ended early by the caller; the loss is that of the fidelity reached


class Purpose(enum.IntEnum):
    """What a trial's key is folded with, so that asking and evaluating never share random numbers."""

    ASK = 0
    EVAL = 1


def run_key(key: Key, task: Array | int, seed: Array | int) -> Key:
    """Key of one run: `fold_in(fold_in(key, task), seed)`."""
    return jax.random.fold_in(jax.random.fold_in(key, task), seed)


def trial_key(run: Key, trial: Array | int, purpose: Purpose) -> Key:
    """Key of one purpose of one trial: `fold_in(fold_in(run, trial), purpose)`."""
    return jax.random.fold_in(jax.random.fold_in(run, trial), int(purpose))


def proposer_key(run: Key) -> Key:
    """Key of a proposer's own initial randomness: a fold that no trial's number reaches."""
    return jax.random.fold_in(run, 2**31 - 1)


def training_keys(run: Key) -> tuple[Key, Key]:
    """Keys of a training run: of its initial weights, and of its minibatches and dropout. Configurations share both."""
    return jax.random.fold_in(run, 0), jax.random.fold_in(run, 1)


class SpaceArrays(struct.PyTreeNode):
    """A search space as data, padded to a static `D`, for models that take the space as an input.

    `kind` holds `spaces.Kind`; `low` and `high` are in natural units (0 and n - 1 for choices). `parent` is -1 where a
    dimension is unconditional; `parent_values[d, i]` says whether value i of the parent (level of a choice, or offset from
    `low` of an int) makes dimension d active.
    """

    kind: Array  # `[D]` int32
    low: Array  # `[D]` float32
    high: Array  # `[D]` float32
    log: Array  # `[D]` bool
    n_choices: Array  # `[D]` int32: levels of a choice or int, 0 for a float
    parent: Array  # `[D]` int32
    parent_values: Array  # `[D, K]` bool
    mask: Array  # `[D]` bool: False where padded


class Context(struct.PyTreeNode):
    """What a proposer or surrogate is told about a task before the first trial."""

    space: SpaceArrays
    descriptor: Array  # `[m]` float32, 0 where missing
    descriptor_mask: Array  # `[m]` bool
    budget: Array  # `[]` int32: number of trials
    max_fidelity: Array  # `[]` float32, in the objective's own unit (samples, epochs, 1)
    given: Array  # `[]` int32: trials that stand in the history before the proposer's first


class Candidates(struct.PyTreeNode):
    """A finite pool to choose from; `n = 0` stands for the continuous space."""

    u: Array  # `[n, D]` float32 in the unit cube
    active: Array  # `[n, D]` bool
    mask: Array  # `[n]` bool: False where padded


class Proposal(struct.PyTreeNode):
    """What to evaluate next. A known `trial` at a higher `fidelity` resumes that trial."""

    trial: Array  # `[]` int32
    row: Array  # `[]` int32: index into the pool, -1 without one
    u: Array  # `[D]` float32
    active: Array  # `[D]` bool
    fidelity: Array  # `[]` float32
    extras: PyTree = ()  # what a policy wants to remember: log-probability, value


class Evaluation(struct.PyTreeNode):
    """What an objective found. `loss` is minimised and in raw units; `fidelity` is the one that was reached."""

    loss: Array  # `[]` float32
    cost: Array  # `[]` float32, in the objective's own unit (FLOPs, seconds)
    fidelity: Array  # `[]` float32
    status: Array  # `[]` int32, a `Status`


class Proposer(NamedTuple):
    """What to try next, given the history. `ask` thinks, `tell` records.

    All randomness and fitting are in `ask`; `tell` takes no key, so that late or replayed results need no special case.
    `traceable` says whether the functions may run under `jit`; one that may not has the same signature.
    """

    init: Callable[[Key, Context], PyTree]
    ask: Callable[[Key, PyTree, Any, Candidates], tuple[Proposal, PyTree]]  # key, state, history, candidates
    tell: Callable[[PyTree, Proposal, Evaluation], PyTree]
    traceable: bool = True


class Objective(NamedTuple):
    """What is tuned: a recorded table, a live learner or a user's function behind one signature."""

    start: Callable[[Key, Proposal], PyTree]
    advance: Callable[[PyTree, Array], tuple[Evaluation, PyTree]]  # run, fidelity to reach
    traceable: bool = True


class Metrics(struct.PyTreeNode):
    """How well a learner does on one split."""

    loss: Array  # `[]` mean cross-entropy in nats (or the task's loss)
    accuracy: Array  # `[]` in [0, 1]


class Curve(struct.PyTreeNode):
    """What is recorded at each of `P` points of a training run (leading axes are the caller's)."""

    valid_loss: Array  # `[P]`
    valid_accuracy: Array  # `[P]`
    test_accuracy: Array  # `[P]`
    train_loss: Array  # `[P]` of the last update before the point
    gradient_norm: Array  # `[P]` likewise
    learning_rate: Array  # `[P]` likewise, after the schedule
    status: Array  # `[P]` int32: OK or DIVERGED


class Learner(NamedTuple):
    """Pure functions whose hyperparameters `h` are traced arrays.

    `step` consumes one micro-batch; `h` may change from step to step; `progress` is samples seen / horizon. `train` is the one
    function over several configurations `[C]` of one task, and is equal to `vmap` of a scan over `step`.
    """

    init: Callable[[Key, PyTree, PyTree], PyTree]  # key, h, task
    step: Callable[[Key, PyTree, PyTree, PyTree, Array], PyTree]  # key, h, state, task, progress
    evaluate: Callable[[PyTree, PyTree, str], Metrics]  # state, task, split
    train: Callable[..., tuple[PyTree, Curve]]  # key, h `[C]`, state `[C]`, task, start, stop


class Surrogate(NamedTuple):
    """A model of the loss over the space; `x [F]` is `space.features(u, active)`."""

    init: Callable[[Key, Context], PyTree]
    fit: Callable[[Key, PyTree, Any, Context], PyTree]  # key, params, history, context -> posterior
    predict: Callable[[PyTree, Array], tuple[Array, Array]]  # posterior, x `[n, F]` -> mean `[n]`, variance `[n]`
    sample: Callable[[Key, PyTree, Array], Array]  # key, posterior, x `[n, F]` -> f `[n]`
    condition: Callable[[PyTree, Array, Array], PyTree]  # posterior, x `[F]`, y -> posterior


class Estimate(struct.PyTreeNode):
    """A hypergradient: the loss it belongs to, the gradient, whether the episode ended, and what else was measured."""

    loss: Array
    gradient: PyTree
    done: Array
    info: PyTree = ()


class HyperGrad(NamedTuple):
    """An estimator of the gradient of a validation loss with respect to `theta`. `carry` is `()` for full-horizon ones."""

    init: Callable[[Key, PyTree, PyTree], PyTree]  # key, theta, task
    step: Callable[[Key, PyTree, PyTree, PyTree], tuple[Estimate, PyTree]]  # key, theta, carry, task


class MetaLearner(NamedTuple):
    """Learns `theta` over batches of tasks; `theta` then makes an ordinary proposer, schedule or surrogate."""

    init: Callable[[Key], PyTree]
    step: Callable[[Key, PyTree, PyTree], tuple[PyTree, PyTree]]  # key, meta_state, task_batch -> meta_state, metrics
    export: Callable[[PyTree], PyTree]


def no_candidates(dimensions: int) -> Candidates:
    """The empty pool that stands for the continuous space of `dimensions` hyperparameters."""
    return Candidates(
        u=jnp.zeros((0, dimensions), jnp.float32),
        active=jnp.zeros((0, dimensions), bool),
        mask=jnp.zeros((0,), bool),
    )


def no_descriptor(size: int = 0) -> tuple[Array, Array]:
    """A descriptor of `size` entries that are all missing, with its mask."""
    return jnp.zeros((size,), jnp.float32), jnp.zeros((size,), bool)
