"""The one training loop of every meta-learner: meta-steps compiled in chunks, host work only between them.

`fit` trains a meta-learner, for one key or for many lanes (folds of a cross-validation, seeds) in the same program.
"""

import contextlib
import functools
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from metahpo_jax.base import Array, Key, MetaLearner, PyTree
from metahpo_jax.checkpoint import load_checkpoint, restore, save_checkpoint
from metahpo_jax.errors import CheckpointError, ConfigError, ObjectiveError
from metahpo_jax.signals import HeldSignals

Hook = Callable[[int, PyTree, PyTree], None]  # meta-steps done, metrics of the last chunk (NumPy), a copy of meta_state


class MetaMetrics(struct.PyTreeNode):
    """What one meta-step measured. A meta-learner that returns this record has its divergence watched by `fit`."""

    loss: Array  # `[]` mean over the finite tasks, NaN without one
    finite: Array  # `[]` int32: tasks whose loss and gradient are finite, and of whose episodes the last that ended did not diverge
    tasks: Array  # `[]` int32: tasks of the batch
    gradient_norm: Array  # `[]` global norm of the mean gradient, before the clip
    info: PyTree = ()  # the estimator's `info`: mean over the finite tasks


# Entries of an estimator's `info` that `fit` warns of when their mean over the last chunk is on the wrong side of one half.
ALARMS = {
    "converged": (
        False,
        "most inner trainings end far from convergence, which implicit differentiation assumes; train for longer, or unroll",
    ),
    "residual": (
        True,
        "the linear systems of implicit differentiation are left unsolved; give the solver more terms, a smaller rate or some damping",
    ),
    "exploding": (
        True,
        "small changes grow too much along most inner trainings; shorten the horizon, lower the rates, or take an evolution strategy",
    ),
}


class Program(NamedTuple):
    """The pure functions that `fit` compiles, for one lane; a caller may vmap, lower or export them."""

    init: Callable[[Key], PyTree]
    run: Callable[[PyTree, Key, PyTree, Array, Array], tuple[PyTree, PyTree]]
    # meta_state, key, data, start, stop -> meta_state, metrics `[chunk]`, of which the first stop - start are filled


def program(meta_learner: MetaLearner, sample_tasks: Callable[[Key, PyTree], PyTree], chunk: int) -> Program:
    """The loop of at most `chunk` meta-steps from `start` to `stop`, both traced: every chunk runs the same program."""

    def init(key: Key) -> PyTree:
        return _strong(meta_learner.init(jax.random.split(key)[0]))

    @jax.jit  # so that finding the shapes of the metrics and compiling the loop share one trace
    def one_step(key: Key, index: Array, meta_state: PyTree, data: PyTree) -> tuple[PyTree, PyTree]:
        sample_key, step_key = jax.random.split(jax.random.fold_in(key, index))
        return _strong(meta_learner.step(step_key, meta_state, sample_tasks(sample_key, data)))

    def run(meta_state: PyTree, key: Key, data: PyTree, start: Array, stop: Array) -> tuple[PyTree, PyTree]:
        run_key = jax.random.split(key)[1]
        shapes = jax.eval_shape(one_step, run_key, start, meta_state, data)[1]
        buffer = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)

        def body(index: Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            meta_state, buffer = carry
            meta_state, metrics = one_step(run_key, index, meta_state, data)
            return meta_state, jax.tree.map(lambda b, m: b.at[index - start].set(m), buffer, metrics)

        return jax.lax.fori_loop(start, stop, body, (meta_state, buffer))

    return Program(init, run)


@functools.lru_cache(maxsize=8)  # a second `fit` of the same functions compiles nothing
def _compiled(
    meta_learner: MetaLearner, sample_tasks: Callable[[Key, PyTree], PyTree], chunk: int, batch: bool, axes: tuple,
    structure: Any,
) -> Program:  # fmt: skip
    init, run = program(meta_learner, sample_tasks, chunk)
    if batch:
        init = jax.vmap(init)
        run = jax.vmap(run, in_axes=(0, 0, jax.tree.unflatten(structure, axes), None, None))
    return Program(jax.jit(init), jax.jit(run, donate_argnums=0))


def _strong(tree: PyTree) -> PyTree:
    """Drops JAX's weak types, which would differ between the first chunk, the later ones and a resumed run."""
    return jax.tree.map(lambda x: jax.lax.convert_element_type(x, jnp.asarray(x).dtype), tree)


class FitResult(NamedTuple):
    """What `fit` returns; with `batch=True` every leaf has the lanes `[S]` in front, so lane s is `tree.map(lambda x:
    x[s], result)`."""

    meta_state: PyTree  # `meta_learner.export(meta_state)` gives theta
    metrics: PyTree  # NumPy arrays `[steps]`


def fit(
    meta_learner: MetaLearner,
    sample_tasks: Callable[[Key, PyTree], PyTree],
    key: Key,
    *,
    steps: int,
    chunk: int = 100,
    data: PyTree = None,
    batch: bool = False,
    data_axes: Any = 0,
    hooks: Sequence[Hook] = (),
    checkpoint: Path | None = None,
    identity: str = "",
    every: int = 1,
    progress: bool = False,
) -> FitResult:
    """Trains a meta-learner for `steps` meta-steps.

    Chunks of `chunk` steps run as one compiled program whose `meta_state` is donated; the next chunk is dispatched
    before the metrics of the last one are read. Keys depend on the step's number alone: `init_key, run_key =
    split(key)` and, for step i, `sample_key, step_key = split(fold_in(run_key, i))`. So a resumed run is
    bit-identical to an uninterrupted one (same chunk, device and versions).

    Args:
      meta_learner: what to train.
      sample_tasks: `(key, data) -> task_batch`, traced.
      key: a typed key; with `batch`, `[S]` of them.
      steps: number of meta-steps. A finished checkpoint is continued by a larger number.
      chunk: meta-steps between two looks of the host.
      data: arrays that `sample_tasks` draws from; passed as arguments, never compiled in.
      batch: trains `S` lanes at once; `data` has the lanes in front, or as `data_axes` says.
      data_axes: `in_axes` of `data` for `jax.vmap`; None for an array that all lanes share.
      hooks: called in order after each chunk as `hook(step, metrics, meta_state)`, with a copy of the state that
        stays valid.
      checkpoint: file to save to, and to resume from where it exists. SIGINT and SIGTERM are held back until the
        chunk is saved, then take their usual course; a second one does so at once.
      identity: names the run (method, settings, meta-dataset); a checkpoint of another identity, key or data is
        refused.
      every: chunks between two checkpoints. The last chunk is always saved.
      progress: shows a bar on stderr.

    Raises:
      ConfigError: for arguments out of range.
      CheckpointError: when the checkpoint cannot be written, is damaged or belongs to another run.
      ObjectiveError: when in every lane over half of the tasks had no finite loss and gradient for `chunk` meta-steps in a row, or for all
        where there are fewer.
    """
    lanes = _check_arguments(key, steps, chunk, every, data, batch, data_axes, checkpoint, identity)
    axes, structure = jax.tree.flatten(data_axes, is_leaf=lambda axis: axis is None)
    init, run = _compiled(meta_learner, sample_tasks, chunk, batch, tuple(axes), structure)
    record = _Record(min(chunk, steps), batch)
    store = None
    done = 0
    if checkpoint is None:
        meta_state = init(key)
    else:
        store = _Store(checkpoint, {"run": identity, "lanes": lanes, "inputs": _digest((key, data))})
        shapes = jax.eval_shape(init, key)
        metrics_shapes = jax.eval_shape(run, shapes, key, data, np.int32(0), np.int32(0))[1]
        resumed = store.load(shapes, metrics_shapes, steps, batch)
        if resumed is None:
            meta_state = init(key)
        else:
            done, meta_state, metrics = resumed
            record.add(done, metrics)

    pending: tuple[int, PyTree, PyTree] | None = None  # of the chunk in flight: its last step, metrics and state

    def finish(stop: int, buffer: PyTree, kept: PyTree) -> None:
        metrics = record.read(stop, buffer)
        record.add(stop, metrics)
        for hook in hooks:
            hook(stop, metrics, kept)
        if store is not None and due(stop):
            store.save(stop, kept, record.metrics())
        bar(stop, metrics)

    def due(stop: int) -> bool:
        return stop == steps or -(-stop // chunk) % every == 0

    with _progress_bar(steps, done, progress) as bar, HeldSignals(store is not None) as signals:
        while done < steps:
            start, done = done, min(done + chunk, steps)
            meta_state, buffer = run(meta_state, key, data, jnp.asarray(start, jnp.int32), jnp.asarray(done, jnp.int32))
            # The next call of `run` donates the state: whoever needs it later gets a copy, made on the device.
            kept = jax.tree.map(jnp.copy, meta_state) if hooks or (store is not None and due(done)) else None
            if pending is not None:
                finish(*pending)
            pending = (done, buffer, kept)
            if store is not None and signals.caught is not None:
                finish(*pending)
                pending = None
                if not due(done):
                    store.save(done, meta_state, record.metrics())
                signals.deliver()
        if pending is not None:
            finish(*pending)
    record.warn()
    return FitResult(meta_state, record.metrics())


def _check_arguments(
    key: Key, steps: int, chunk: int, every: int, data: PyTree, batch: bool, data_axes: Any, checkpoint: Path | None,
    identity: str,
) -> int | None:  # fmt: skip
    """The number of lanes, None without `batch`."""
    for name, value in {"steps": steps, "chunk": chunk, "every": every}.items():
        if value < 1:
            raise ConfigError(f"fit: {name} must be at least 1, got {value}; give a positive whole number.")
    if not _is_key(key) or key.ndim != int(batch):
        expected = "typed keys of shape [S] with batch=True" if batch else "one typed key without batch=True"
        got = f"{key.dtype}{list(key.shape)}" if isinstance(key, jax.Array) else repr(key)
        raise ConfigError(f"fit: key must be {expected}, got {got}; make it by jax.random.key, and split it for lanes.")
    if checkpoint is not None and not identity:
        raise ConfigError(
            "fit: identity must name the run that the checkpoint belongs to, got ''; join method, settings and the "
            "hash of the meta-dataset."
        )
    if not batch:
        return None
    lanes = key.shape[0]
    wrong = [np.shape(leaf) for leaf in jax.tree.leaves(data) if np.shape(leaf)[:1] != (lanes,)]
    if data_axes == 0 and wrong:
        raise ConfigError(
            f"fit: every array of data must have a leading axis of {lanes} lanes as key has, got shape "
            f"{list(wrong[0])}; stack the lanes, or set data_axes for arrays that they share."
        )
    return lanes


class _Record:
    """The metrics so far, and for how many meta-steps over half of each lane's tasks have diverged."""

    def __init__(self, chunk: int, batch: bool):
        self.chunk, self.axis = chunk, int(batch)  # metrics are `[time]`, with batch `[S, time]`
        self.pieces: list[PyTree] = []
        self.steps = 0
        self.streak = np.zeros((), np.int64)

    def read(self, stop: int, buffer: PyTree) -> PyTree:
        """The filled part of a chunk's metrics; waits for the chunk to end."""
        part = (slice(None),) * self.axis + (slice(stop - self.steps),)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[part], buffer)

    def add(self, stop: int, metrics: PyTree) -> None:
        """Appends metrics up to step `stop`; raises ObjectiveError when over half of the tasks of every lane diverge for a whole chunk."""
        self.pieces.append(metrics)
        self.steps = stop
        if not isinstance(metrics, MetaMetrics):
            return
        alive = 2 * np.asarray(metrics.finite) >= np.asarray(metrics.tasks)
        trailing = np.argmax(alive[..., ::-1], axis=-1)
        self.streak = np.where(alive.any(axis=-1), trailing, self.streak + alive.shape[-1])
        shortest = int(self.streak.min())
        if shortest >= self.chunk:
            raise ObjectiveError(
                f"fit: over half of the tasks gave no finite loss and gradient in the meta-steps {stop - shortest} to {stop - 1}; "
                "lower the learning rate, clip by max_norm, or look at the tasks that sample_tasks draws."
            )

    def metrics(self) -> PyTree:
        """All of them, `[steps]` or `[S, steps]`."""
        self.pieces = [jax.tree.map(lambda *parts: np.concatenate(parts, axis=self.axis), *self.pieces)]
        return self.pieces[0]

    def warn(self) -> None:
        """Names the lanes that ended diverged while others went on, and what an estimator's `info` raised the alarm about."""
        found = self.pieces[-1].info if isinstance(self.pieces[-1], MetaMetrics) else ()
        for name, (when, sentence) in ALARMS.items():
            if isinstance(found, dict) and name in found:
                seen = np.asarray(self.pieces[-1].finite)[..., -self.chunk :] > 0
                last = np.asarray(found[name])[..., -self.chunk :][seen]
                if last.size and (np.mean(last) > 0.5) == when:
                    warnings.warn(f"fit: {sentence}.", RuntimeWarning, stacklevel=3)
        lanes = np.flatnonzero(self.streak >= self.chunk).tolist()
        if lanes:
            warnings.warn(
                f"fit: in lanes {lanes} over half of the tasks diverged in their last {self.chunk} meta-steps or more; leave them out "
                "of means, their theta is not trained to the end.",
                RuntimeWarning,
                stacklevel=3,
            )


class _Store:
    """The checkpoint of one run."""

    def __init__(self, path: Path, identity: dict[str, Any]):
        self.path, self.identity = Path(path), identity

    def save(self, step: int, meta_state: PyTree, metrics: PyTree) -> None:
        tree = {"meta_state": meta_state, "metrics": metrics}
        save_checkpoint(
            self.path, tree, kind="fit", identity=self.identity, metadata={"step": step}, allow_nonfinite=True
        )

    def load(self, meta_state: PyTree, buffer: PyTree, steps: int, batch: bool) -> tuple[int, PyTree, PyTree] | None:
        """Step, state and metrics, of the shapes given; None where there is no file yet."""
        if not self.path.exists() and not self.path.is_symlink():
            return None
        leaves, metadata = load_checkpoint(self.path, kind="fit", identity=self.identity, allow_nonfinite=True)
        step = metadata.get("step")
        if not isinstance(step, int) or not 0 < step <= steps:
            raise CheckpointError(
                f"{self.path}: its step is {step}, expected 1 to {steps}; raise steps, or delete the file to start "
                "anew."
            )

        def at_step(leaf: Array) -> jax.ShapeDtypeStruct:
            shape = (leaf.shape[0], step, *leaf.shape[2:]) if batch else (step, *leaf.shape[1:])
            return jax.ShapeDtypeStruct(shape, leaf.dtype)

        like = {"meta_state": meta_state, "metrics": jax.tree.map(at_step, buffer)}
        tree = restore(leaves, like, str(self.path))
        # A copy, since the state is donated and JAX may share memory with the arrays that were read.
        return step, jax.tree.map(lambda x: jnp.array(x, copy=True), tree["meta_state"]), tree["metrics"]


def _digest(tree: PyTree) -> str:
    """SHA-256 of the arrays and keys of a tree with their names, shapes and types."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)
        kind = jax.random.key_impl(leaf) if _is_key(leaf) else array.dtype
        digest.update(f"{jax.tree_util.keystr(path)} {kind} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


@contextlib.contextmanager
def _progress_bar(steps: int, done: int, shown: bool) -> Iterator[Callable[[int, PyTree], None]]:
    """A function to call with the steps done and the last metrics."""
    if not shown:
        yield lambda step, metrics: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("meta-training", total=steps, completed=done)

        def update(step: int, metrics: PyTree) -> None:
            loss = f", loss {np.mean(metrics.loss[..., -1]):.4g}" if isinstance(metrics, MetaMetrics) else ""
            bar.update(task, completed=step, description=f"meta-training{loss}")

        yield update
