"""Conversion from and to ConfigSpace and Optuna (extra `[interop]`). What one side cannot say is refused by name."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

from metahpo_jax.errors import SpaceError
from metahpo_jax.spaces.dimensions import Choice, Dimension, Float, Int
from metahpo_jax.spaces.space import Space

MAX_STEPS = 1024
CONFIGSPACE_PLACES = 13


def _missing(package: str) -> SpaceError:
    return SpaceError(f"{package} is not installed; it comes with `pip install metahpo-jax[interop]`.")


def to_configspace(space: Space) -> Any:
    """The same space as a `ConfigSpace.ConfigurationSpace`, conditions included; it sorts the hyperparameters itself.

    Raises:
      SpaceError: when ConfigSpace is absent, or would round a bound.
    """
    try:
        import ConfigSpace as cs
    except ImportError:
        raise _missing("ConfigSpace") from None
    out = cs.ConfigurationSpace()
    made: dict[str, Any] = {}
    for name in space:
        x = space[name]
        if isinstance(x, Choice) and x.ordered:
            made[name] = cs.OrdinalHyperparameter(name, list(x.values))
        elif isinstance(x, Choice):
            made[name] = cs.CategoricalHyperparameter(name, list(x.values))
        elif x.low == x.high:
            made[name] = cs.Constant(name, x.low)
        else:
            kind = cs.UniformFloatHyperparameter if isinstance(x, Float) else cs.UniformIntegerHyperparameter
            if (round(x.low, CONFIGSPACE_PLACES), round(x.high, CONFIGSPACE_PLACES)) != (x.low, x.high):
                raise SpaceError(
                    f"ConfigSpace: {name!r}: bounds are rounded to {CONFIGSPACE_PLACES} decimals there, "
                    f"got low={x.low!r} and high={x.high!r}; change the unit."
                )
            made[name] = kind(name, x.low, x.high, log=x.log)
    out.add(list(made.values()))
    for name, row in space.to_json().items():
        if "when" in row:
            ((parent, values),) = row["when"].items()
            out.add(cs.InCondition(made[name], made[parent], values))
    return out


def from_configspace(configspace: Any) -> Space:
    """The `Space` of a ConfigSpace. Uniform, ordinal, categorical and constant hyperparameters and equal/in conditions.

    Raises:
      SpaceError: naming the hyperparameter, condition or forbidden clause that has no counterpart here.
    """
    try:
        import ConfigSpace as cs
    except ImportError:
        raise _missing("ConfigSpace") from None
    if configspace.forbidden_clauses:
        raise SpaceError(f"ConfigSpace: forbidden clauses are not supported, got {configspace.forbidden_clauses[0]!r}.")
    when: dict[str, dict[str, tuple[Any, ...]]] = {}
    for condition in configspace.conditions:
        if isinstance(condition, cs.InCondition):
            values = tuple(_native(v) for v in condition.values)
        elif isinstance(condition, cs.EqualsCondition):
            values = (_native(condition.value),)
        else:
            raise SpaceError(f"ConfigSpace: only equal and in conditions are supported, got {condition!r}.")
        if condition.child.name in when:
            raise SpaceError(f"ConfigSpace: {condition.child.name!r} has more than one condition; one is supported.")
        when[condition.child.name] = {condition.parent.name: values}
    dimensions: dict[str, Dimension] = {}
    for name, x in configspace.items():
        cond = when.get(name)
        with _naming("ConfigSpace", name):
            if isinstance(x, cs.UniformFloatHyperparameter):
                dimensions[name] = Float(float(x.lower), float(x.upper), log=bool(x.log), when=cond)
            elif isinstance(x, cs.UniformIntegerHyperparameter):
                dimensions[name] = Int(int(x.lower), int(x.upper), log=bool(x.log), when=cond)
            elif isinstance(x, cs.OrdinalHyperparameter):
                dimensions[name] = Choice(*map(_native, x.sequence), ordered=True, when=cond)
            elif isinstance(x, cs.CategoricalHyperparameter):
                if x.weights is not None:
                    raise SpaceError("weights of choices are not supported.")
                dimensions[name] = Choice(*map(_native, x.choices), when=cond)
            elif isinstance(x, cs.Constant):
                dimensions[name] = Choice(_native(x.value), when=cond)
            else:
                raise SpaceError(f"a {type(x).__name__} has no counterpart here.")
    return Space.of(dimensions)


def to_optuna(space: Space) -> dict[str, Any]:
    """Optuna distributions by name. They are flat and know no order of choices: both are for the caller's own code.

    Raises:
      SpaceError: when Optuna is absent or the space has conditions.
    """
    try:
        from optuna import distributions as od
    except ImportError:
        raise _missing("Optuna") from None
    out: dict[str, Any] = {}
    for name in space:
        x = space[name]
        if x.when is not None:
            raise SpaceError(f"Optuna: distributions cannot hold the condition of {name!r}; convert a flat space.")
        if isinstance(x, Choice):
            out[name] = od.CategoricalDistribution(x.values)
        elif isinstance(x, Int):
            out[name] = od.IntDistribution(x.low, x.high, log=x.log)
        else:
            out[name] = od.FloatDistribution(x.low, x.high, log=x.log)
    return out


def from_optuna(distributions: dict[str, Any]) -> Space:
    """The `Space` of Optuna distributions by name; a stepped one becomes an ordered choice of its values.

    Raises:
      SpaceError: when Optuna is absent or a distribution has no counterpart here.
    """
    try:
        from optuna import distributions as od
    except ImportError:
        raise _missing("Optuna") from None
    dimensions: dict[str, Dimension] = {}
    for name, x in distributions.items():
        with _naming("Optuna", name):
            if isinstance(x, od.CategoricalDistribution):
                dimensions[name] = Choice(*x.choices)
            elif isinstance(x, od.IntDistribution) and x.step == 1:
                dimensions[name] = Int(x.low, x.high, log=x.log)
            elif isinstance(x, od.FloatDistribution) and x.step is None:
                dimensions[name] = Float(x.low, x.high, log=x.log)
            elif isinstance(x, (od.IntDistribution, od.FloatDistribution)) and x.step is not None:
                dimensions[name] = _stepped(x.low, x.high, x.step)
            else:
                raise SpaceError(f"a {type(x).__name__} has no counterpart here.")
    return Space.of(dimensions)


def _stepped(low: float, high: float, step: float) -> Choice:
    """Ordered choice of `low`, `low + step`, ... up to `high`."""
    count = math.floor((high - low) / step + 1e-6) + 1
    if count > MAX_STEPS:
        raise SpaceError(f"at most {MAX_STEPS} steps are supported, got {count}; use a range without steps.")
    return Choice(*(low + i * step for i in range(count)), ordered=True)


@contextlib.contextmanager
def _naming(package: str, name: str) -> Iterator[None]:
    """Puts the package and the hyperparameter before the sentence of a SpaceError."""
    try:
        yield
    except SpaceError as error:
        raise SpaceError(f"{package}: {name!r}: {error}") from None


def _native(value: Any) -> Any:
    """ConfigSpace returns `np.str_` and other NumPy scalars."""
    return value.item() if hasattr(value, "item") else value
