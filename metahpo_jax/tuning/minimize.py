"""`minimize`: a user's own function, tuned in one call."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from metahpo_jax import objectives
from metahpo_jax.base import Key, Proposer, Status
from metahpo_jax.errors import ConfigError, ObjectiveError
from metahpo_jax.metalearners.prior import Prior
from metahpo_jax.spaces import Space
from metahpo_jax.tuning.records import Trial, TrialRecord
from metahpo_jax.tuning.study import Study, whole


@dataclass(frozen=True)
class Result:
    """What `minimize` found."""

    config: dict[str, Any]  # the best one
    loss: float  # its loss
    trials: list[TrialRecord] = field(repr=False)
    study: Study = field(repr=False)  # to go on asking and telling, or to save
    interrupted: bool = False  # by Ctrl-C, after at least one trial had a loss

    def __repr__(self) -> str:
        ending = ", interrupted" if self.interrupted else ""
        return f"Result(loss={self.loss:.6g}, config={self.config}, {len(self.trials)} trials{ending})"


def minimize(
    fn: Callable[..., Any], space: Space, trials: int, *, prior: Prior | None = None, proposer: Proposer | None = None,
    key: int | Key = 0, max_fidelity: float = 1.0, descriptor: Any = None, catch: bool = True, progress: bool = False,
    on_trial: Callable[[TrialRecord], object] | None = None,
) -> Result:  # fmt: skip
    """Minimises `fn(config) -> loss`, or `fn(config, fidelity) -> loss`, over `space` in a number of trials.

    A trial whose function raises, exits or returns anything but one real number has FAILED, one with NaN or infinity
    has DIVERGED; the search goes on. Ctrl-C ends the search and returns what was found, if anything was.

    Args:
      fn: called in this process, one trial after another; `config` maps the active hyperparameters' names to values.
      space: what is searched.
      trials: how many evaluations.
      prior: what was learned on other tasks of the same space; without one the search starts from nothing.
      proposer: any other method instead, such as `random(space)`.
      key: a seed or typed key; the trials are a function of it and of the losses.
      max_fidelity: what `fn` gets as the fidelity of a whole evaluation, in its own unit.
      descriptor: of the task, `[m]`, for proposers that read one.
      catch: whether exceptions are failures of the trial; otherwise they end the search.
      progress: whether a bar is shown on stderr.
      on_trial: called with the record of each trial.

    Raises:
      ConfigError: for an argument that is not as described.
      SpaceError: when the prior was made for another space.
      ObjectiveError: when every trial failed, with the first one's reason.

    Example:
      >>> from metahpo_jax import Float, Space, minimize, random
      >>> space = Space(x=Float(0.0, 1.0))
      >>> result = minimize(lambda config: (config["x"] - 0.3) ** 2, space, trials=20, proposer=random(space))
      >>> result.loss < 0.05
      True
    """
    if not callable(fn):
        raise ConfigError(f"minimize: fn must be a function of a configuration, got {type(fn).__name__}.")
    trials = whole(trials, "minimize: trials", least=1)
    study = Study(
        space, proposer, prior=prior, key=key, budget=trials, max_fidelity=max_fidelity, descriptor=descriptor
    )
    interrupted = False
    with _progress_bar(trials, progress) as update:
        try:
            for _ in range(trials):
                record = _evaluate(fn, study, study.ask(), catch)
                update(record)
                if on_trial is not None:
                    on_trial(record)
        except KeyboardInterrupt:
            if not _losses(study):
                raise
            interrupted = True
    if not _losses(study):
        first = study.trials[0]
        raise ObjectiveError(f"all {trials} trials failed, the first one because: {first.reason}")
    best = study.best
    return Result(best.config, best.loss, study.trials, study, interrupted)


def _evaluate(fn: Callable[..., Any], study: Study, trial: Trial, catch: bool) -> TrialRecord:
    """Calls the function and tells; a trial that ends the search is told, too, so that none stays pending."""
    arguments = (trial.config, trial.fidelity) if objectives.takes_fidelity(fn) else (trial.config,)
    try:
        loss, status, reason = objectives.call(fn, arguments, catch=catch)
    except BaseException as error:
        record = study.tell(trial, status=Status.FAILED, reason=f"{type(error).__name__}: {objectives.text_of(error)}")
        if catch and isinstance(error, SystemExit):
            return record
        raise
    return study.tell(trial, loss if status == Status.OK else None, status=status, reason=reason)


def _losses(study: Study) -> list[float]:
    return [record.loss for record in study.trials if not math.isnan(record.loss)]


@contextlib.contextmanager
def _progress_bar(trials: int, shown: bool) -> Iterator[Callable[[TrialRecord], None]]:
    """A function to call with the record of each trial."""
    if not shown:
        yield lambda record: None
        return
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    best = math.inf
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("tuning", total=trials)

        def update(record: TrialRecord) -> None:
            nonlocal best
            best = min(best, math.inf if math.isnan(record.loss) else record.loss)
            shown_best = f", best {best:.4g}" if math.isfinite(best) else ""
            bar.update(task, advance=1, description=f"tuning{shown_best}")

        yield update
