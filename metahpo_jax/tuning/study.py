"""`Study`: ask what to try next, tell what came of it, in any order, on one's own objective."""

import functools
import math
import operator
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax import driver
from metahpo_jax import history as histories
from metahpo_jax.base import Evaluation, Key, Proposal, Proposer, Status, no_candidates
from metahpo_jax.errors import ConfigError, MetaHPOError, ObjectiveError, StudyError
from metahpo_jax.history import History
from metahpo_jax.metalearners.prior import Prior
from metahpo_jax.objectives import as_loss
from metahpo_jax.proposers import gp_bo, sobol
from metahpo_jax.spaces import Space
from metahpo_jax.tuning import study_file
from metahpo_jax.tuning.records import Asked, Event, Told, Trial, TrialRecord

BUDGET = 64
FIRST_CAPACITY = 64  # rows from the start, if the budget needs them: compiling a model again costs more than padding
WITH_LOSS = (Status.OK, Status.STOPPED)
WITHOUT_LOSS = (Status.FAILED, Status.DIVERGED)


class Study:
    """A search over `space` that the caller drives::

        study = Study(space)
        trial = study.ask()
        study.tell(trial, loss=train(**trial.config))
        study.best.config

    A study is its events: the proposals in the order of asking and the results in the order of telling. Its history
    starts with room for the budget (up to 64 rows) and doubles when it is full, so N trials trace a proposer at most
    log2(N) + 1 times.

    Args:
      space: what is searched.
      proposer: of the same space; by default Gaussian-process Bayesian optimisation that opens with 3 Sobol points.
      prior: what was learned on other tasks, instead of a proposer.
      key: a seed, or a typed key of `jax.random.key`; the trials are a function of it and of the results.
      budget: number of trials planned. Some proposers spread their trials over it; more may be asked for.
      max_fidelity: of a whole evaluation, in the objective's own unit (samples, epochs, 1).
      descriptor: of the task, `[m]`, for proposers that read one; NaN where missing.

    Raises:
      SpaceError: when the prior was made for another space.
      ConfigError: for any other argument that is not as described.
    """

    def __init__(
        self, space: Space, proposer: Proposer | None = None, *, prior: Prior | None = None, key: int | Key = 0,
        budget: int = BUDGET, max_fidelity: float = 1.0, descriptor: Any = None,
    ) -> None:  # fmt: skip
        self.space = space
        self._proposer = _choose(space, proposer, prior)
        self._key = _typed_key(key)
        self._budget = whole(budget, "Study: budget", least=1)
        self._max_fidelity = _real(max_fidelity, "Study: max_fidelity must be a positive number", ConfigError)
        self._descriptor = _entries(descriptor)
        self._asking, self._telling = _compiled(self._proposer)
        self._candidates = no_candidates(space.size)
        context = space.context(budget=self._budget, max_fidelity=self._max_fidelity, descriptor=self._descriptor)
        capacity = histories.capacity_for(min(self._budget, FIRST_CAPACITY))
        self._run = driver.start(self._key, self._proposer, context, capacity)
        self._events: list[Event] = []
        self._asked: list[tuple[Trial, Proposal]] = []  # by row
        self._told: dict[int, Told] = {}  # by row

    # --- ask and tell ------------------------------------------------------------------------------------------------

    def ask(self) -> Trial:
        """The next trial. Those that were asked for and not told yet are taken into account as pending."""
        run = self._with_room()
        proposal, run = self._asking(self._key, run, self._candidates)
        return self._append(proposal, run)

    def ask_batch(self, size: int) -> list[Trial]:
        """`size` trials to evaluate at the same time, each chosen with the earlier ones pending."""
        return [self.ask() for _ in range(whole(size, "ask_batch: size", least=1))]

    def tell(
        self, trial: Trial | int, loss: Any = None, *, status: Status | None = None, reason: str = "",
        cost: float = 0.0, fidelity: float | None = None,
    ) -> TrialRecord:  # fmt: skip
        """Records a result, whenever and in whatever order it comes.

        Args:
          trial: what `ask` returned, or its number.
          loss: one real number, to be minimised. NaN and infinity make the trial DIVERGED.
          status: FAILED or DIVERGED where there is no loss; STOPPED where the loss is that of a run ended early.
          reason: why there is no loss, for people.
          cost: in the objective's own unit.
          fidelity: the one that was reached, when it is not the one asked for.

        Raises:
          StudyError: when the trial was never asked for, belongs to another study, or was told before.
          ObjectiveError: when the loss, cost or fidelity is no such number; the trial stays pending.
        """
        row = self._row(trial)
        asked, _ = self._asked[row]
        what = f"trial {asked.number}"
        value, state, why = _outcome(what, loss, status)
        planned = asked.fidelity if fidelity is None else fidelity
        event = Told(
            row=row,
            loss=value,
            cost=_real(cost, f"{what}: cost must be a number that is not negative", ObjectiveError, or_zero=True),
            fidelity=_real(planned, f"{what}: fidelity must be a positive number", ObjectiveError),
            status=state,
            reason=str(reason) or why,
        )
        self._record(event)
        return self._result(row)

    # --- what is known -----------------------------------------------------------------------------------------------

    @property
    def trials(self) -> list[TrialRecord]:
        """One record per proposal in the order of asking, pending ones included."""
        return [self._result(row) for row in range(len(self._asked))]

    @property
    def best(self) -> TrialRecord:
        """The record of the lowest loss at the highest fidelity that any trial reached.

        Raises:
          StudyError: while there is no loss; when all trials failed, with the first one's reason.
        """
        told = [self._result(row) for row in sorted(self._told)]
        good = [record for record in told if not math.isnan(record.loss)]
        if not told:
            raise StudyError("the study has no best trial yet: ask for a trial, evaluate it and tell its loss.")
        if not good:
            raise StudyError(
                f"all {len(told)} trials failed, the first one because: {told[0].reason or told[0].status}"
            )
        top = max(record.fidelity for record in good)
        return min((record for record in good if record.fidelity >= top), key=lambda record: record.loss)

    @property
    def history(self) -> History:
        """The same as arrays, padded to a power of two: what the proposer sees."""
        return self._run.history

    def __len__(self) -> int:
        return len(self._asked)

    def __repr__(self) -> str:
        return f"Study({len(self._asked)} trials, {len(self._told)} told, {self.space!r})"

    # --- to a file and back ------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the study as one JSON file, whole or not at all.

        Raises:
          StoreError: when the file cannot be written.
        """
        header = study_file.Header(self.space, self._key, self._budget, self._max_fidelity, self._descriptor)
        study_file.write(Path(path), header, self._events)

    @classmethod
    def load(
        cls, path: str | os.PathLike[str], space: Space, proposer: Proposer | None = None, *, prior: Prior | None = None
    ) -> "Study":
        """The study of a file, to go on with as if it had never stopped.

        With the same proposer, the trials to come are the same bit by bit. The events are replayed, so a proposer's state is rebuilt,
        not read. Another proposer, or a machine that rounds differently, goes on from the recorded trials.

        Raises:
          StoreError: when the file is missing, damaged or of another version.
          SpaceError: when the study was made for another space than `space`, with the differences.
        """
        header, events = study_file.read(Path(path))
        space.require_same(header.space, f"study {path}")
        study = cls(
            space, proposer, prior=prior, key=header.key, budget=header.budget, max_fidelity=header.max_fidelity,
            descriptor=header.descriptor,
        )  # fmt: skip
        for event in events:
            study._replay(event)
        return study

    # --- events ------------------------------------------------------------------------------------------------------

    def _with_room(self) -> driver.Run:
        """The run with at least one empty row."""
        history, count = self._run.history, len(self._asked)
        if count < history.capacity:
            return self._run
        return self._run._replace(history=histories.grow(history, histories.capacity_for(count + 1)))

    def _append(self, proposal: Proposal, run: driver.Run) -> Trial:
        u = np.asarray(proposal.u)
        trial = Trial(int(proposal.trial), self.space.decode(u), float(proposal.fidelity), u)
        self._run = run
        self._asked.append((trial, proposal))
        self._events.append(Asked(trial.number, tuple(u.tolist()), trial.fidelity))
        # The study keeps its own copy: what the caller does to a configuration must not change the record.
        return Trial(trial.number, dict(trial.config), trial.fidelity, u)

    def _record(self, event: Told) -> None:
        evaluation = Evaluation(
            loss=jnp.asarray(event.loss, jnp.float32), cost=jnp.asarray(event.cost, jnp.float32),
            fidelity=jnp.asarray(event.fidelity, jnp.float32), status=jnp.asarray(int(event.status), jnp.int32),
        )  # fmt: skip
        self._run = self._telling(self._run, self._asked[event.row][1], evaluation)
        self._told[event.row] = event
        self._events.append(event)

    def _replay(self, event: Event) -> None:
        if isinstance(event, Told):
            self._record(event)
            return
        run = self._with_room()
        proposal, asked = self._asking(self._key, run, self._candidates)  # for the state; the trial is the recorded one
        u = jnp.asarray(event.u, jnp.float32)
        proposal = proposal.replace(
            trial=jnp.asarray(event.trial, jnp.int32), u=u, active=self.space.active(u),
            fidelity=jnp.asarray(event.fidelity, jnp.float32),
        )  # fmt: skip
        self._append(proposal, asked._replace(history=histories.record_pending(run.history, proposal)))

    def _row(self, trial: Trial | int) -> int:
        """The pending row of a trial."""
        number = whole(trial.number if isinstance(trial, Trial) else trial, "tell: trial", least=0, error=StudyError)
        rows = [row for row, (asked, _) in enumerate(self._asked) if asked.number == number]
        if not rows:
            known = f"trials 0 to {max(t.number for t, _ in self._asked)}" if self._asked else "no trial yet"
            raise StudyError(f"tell: trial {number} was never asked for; this study has asked for {known}.")
        if isinstance(trial, Trial):
            rows = [row for row in rows if self._asked[row][0].fidelity == trial.fidelity]
            if not rows or not np.array_equal(self._asked[rows[0]][0].u, trial.u):
                raise StudyError(f"tell: trial {number} was asked by another study; tell it there.")
        pending = [row for row in rows if row not in self._told]
        if not pending:
            result = self._result(rows[-1])
            raise StudyError(
                f"tell: trial {number} was told before ({result.status}, loss {result.loss:.6g}); tell each trial once."
            )
        return pending[0]

    def _result(self, row: int) -> TrialRecord:
        trial, told = self._asked[row][0], self._told.get(row)
        number, config = trial.number, dict(trial.config)
        if told is None:
            return TrialRecord(number, config, trial.fidelity, math.nan, 0.0, Status.PENDING.name, "")
        return TrialRecord(number, config, told.fidelity, told.loss, told.cost, told.status.name, told.reason)


def whole(value: Any, what: str, *, least: int, error: type[MetaHPOError] = ConfigError) -> int:
    """A whole number of at least `least` from an argument; otherwise an error that starts with `what`."""
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise error(f"{what} must be a whole number of at least {least}, got {type(value).__name__}.") from None
    if number < least:
        raise error(f"{what} must be a whole number of at least {least}, got {value}.")
    return number


@functools.lru_cache(maxsize=16)
def _default(space: Space) -> Proposer:
    return gp_bo(space, opening=sobol(space))


@functools.lru_cache(maxsize=16)
def _learned(prior: Prior, space: Space) -> Proposer:
    return prior.proposer(space)


# One proposer is compiled once, whatever the number of its studies: compiling takes longer than most studies.
_compiled = functools.lru_cache(maxsize=16)(driver.compiled)


def _choose(space: Space, proposer: Proposer | None, prior: Prior | None) -> Proposer:
    if not isinstance(space, Space):
        raise ConfigError(f"Study: space must be a Space, got {type(space).__name__}.")
    if proposer is not None and prior is not None:
        raise ConfigError("Study: give a proposer or a prior, not both; a prior makes its own proposer.")
    if prior is not None:
        if not isinstance(prior, Prior):
            raise ConfigError(
                f"Study: prior must be a Prior, got {type(prior).__name__}; a Proposer goes to proposer=."
            )
        return _learned(prior, space)
    if proposer is None:
        return _default(space)
    if not isinstance(proposer, Proposer):
        hint = "; call the factory with the space, as in random(space)" if callable(proposer) else ""
        raise ConfigError(f"Study: proposer must be a Proposer, got {type(proposer).__name__}{hint}.")
    return proposer


def _typed_key(key: int | Key) -> Key:
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        if key.shape == ():
            return key
        raise ConfigError(
            f"Study: key must be a single key, got an array of shape {key.shape}; make one study per key."
        )
    seed = whole(key, "Study: key, unless it is a typed key of jax.random.key,", least=0)
    if seed >= 2**32:
        raise ConfigError(f"Study: key must be below 2**32, got {seed}.")
    return jax.random.key(np.uint32(seed))


def _entries(descriptor: Any) -> tuple[float, ...] | None:
    """A descriptor `[m]` as numbers that float32 holds exactly."""
    if descriptor is None:
        return None
    try:
        entries = np.asarray(descriptor, np.float32)
    except (TypeError, ValueError):
        raise ConfigError(f"Study: descriptor must be a list of numbers, got {type(descriptor).__name__}.") from None
    if entries.ndim != 1:
        raise ConfigError(f"Study: descriptor must be a list of numbers, got an array of shape {entries.shape}.")
    return tuple(entries.tolist())


def _real(value: Any, what: str, error: type[MetaHPOError], *, or_zero: bool = False) -> float:
    try:
        number = as_loss(value)
    except ObjectiveError:
        raise error(f"{what}, got {type(value).__name__}.") from None
    if not math.isfinite(number) or number < 0 or (number == 0 and not or_zero):
        raise error(f"{what}, got {number}.")
    return number


def _outcome(what: str, loss: Any, status: Status | None) -> tuple[float, Status, str]:
    """Loss, status and reason of what a caller told; the loss is NaN unless it is one to learn from."""
    if status is None and loss is None:
        raise ObjectiveError(f"{what}: tell its loss, or status=Status.FAILED where it has none.")
    if status is not None and status not in WITH_LOSS + WITHOUT_LOSS:
        raise StudyError(f"{what}: status must be OK, DIVERGED, FAILED or STOPPED, got {status!r}.")
    if status in WITHOUT_LOSS:
        if loss is not None:
            raise StudyError(
                f"{what}: a {Status(status).name} trial has no loss; leave it out, or tell status=Status.OK."
            )
        return math.nan, Status(status), ""
    try:
        value = as_loss(loss)
    except ObjectiveError as error:
        raise ObjectiveError(f"{what}: {error}") from None
    if not math.isfinite(value):
        return math.nan, Status.DIVERGED, f"the loss is {value}"
    return value, Status.OK if status is None else Status(status), ""
