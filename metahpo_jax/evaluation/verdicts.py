"""What a benchmark says of each method in plain sentences: below, level with or above each baseline, at which trials.

A method is *below* a baseline (of less regret, so better) or *above* it after a trial if the paired bootstrap interval
of their difference over data sets excludes 0 there, *equal to* it if the two are the same on every task and seed there, and
*level with* it otherwise. The intervals are pointwise: of twenty verdicts between methods that are in truth alike, one
is expected to be wrong. `BenchmarkResult.friedman` is the comparison that corrects for their number.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from metahpo_jax.evaluation.statistics import Interval

RELATIONS = ("below", "level with", "above", "equal to")
POINTWISE = (
    "Below (less regret) and above: the 95 % bootstrap interval over data sets of the difference, paired by task and "
    "seed, excludes 0. These intervals are pointwise, not corrected for the number of comparisons; the "
    "critical-difference picture is."
)


class Comparison(Protocol):
    """What verdicts read of a `BenchmarkResult`, which holds its own verdicts and so cannot be imported here."""

    @property
    def runs(self) -> Sequence[Any]:
        """Each with a `name` and a `regret` `[tasks, seeds, T]`."""
        ...

    @property
    def groups(self) -> Sequence[str]:
        """Base data set of each task."""
        ...

    @property
    def baselines(self) -> Sequence[str]:
        """Names to compare with."""
        ...

    @property
    def shown(self) -> Sequence[int]:
        """Trials to compare at, from 1."""
        ...

    def difference(self, run: Any, baseline: Any, /) -> Interval:
        """Paired difference of regrets, `[T]`."""
        ...


class Verdict(NamedTuple):
    """How a method stands to a baseline."""

    method: str
    baseline: str
    relations: dict[int, str]  # by trial, one of `RELATIONS`

    @property
    def clause(self) -> str:
        """`below portfolio at 20 and 50 trials, level with it at 1, 5 and 10`."""
        parts = []
        for relation in RELATIONS:
            at = [trial for trial, found in self.relations.items() if found == relation]
            if at and parts:
                parts.append(f"{relation} it at {_listed(at)}")
            elif at:
                parts.append(f"{relation} {self.baseline} at {_listed(at)} {'trial' if at == [1] else 'trials'}")
        return ", ".join(parts)

    @property
    def sentence(self) -> str:
        """`pretrained_gp is below portfolio at 20 and 50 trials, level with it at 1, 5 and 10.`"""
        return f"{self.method} is {self.clause}."


def verdicts(result: Comparison) -> list[Verdict]:
    """One verdict per method and baseline of the result, at its budgets.

    Empty where there is a single data set, which says nothing about others.
    """
    if len(set(result.groups)) < 2:
        return []
    by_name = {run.name: run for run in result.runs}
    found = []
    for run in result.runs:
        for baseline in result.baselines:
            if baseline == run.name or baseline not in by_name:
                continue
            other = by_name[baseline]
            _, low, high = result.difference(run, other)
            same = (run.regret == other.regret).all(axis=(0, 1))
            # A difference of 0 may come out as the rounding of its sum.
            zero = 1e-12 * np.maximum(np.abs(run.regret), np.abs(other.regret)).max(axis=(0, 1))
            index = np.where(same, 3, np.where(high < -zero, 0, np.where(low > zero, 2, 1)))
            found.append(Verdict(run.name, baseline, {trial: RELATIONS[index[trial - 1]] for trial in result.shown}))
    return found


def sentences(result: Comparison) -> list[str]:
    """One sentence per method, over all baselines."""
    clauses: dict[str, list[str]] = {}
    for verdict in verdicts(result):
        clauses.setdefault(verdict.method, []).append(verdict.clause)
    return [f"{method} is {'; '.join(parts)}." for method, parts in clauses.items()]


def _listed(trials: list[int]) -> str:
    *head, last = map(str, trials)
    return f"{', '.join(head)} and {last}" if head else last
