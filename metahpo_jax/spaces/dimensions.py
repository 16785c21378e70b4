"""Typed hyperparameters. Each validates itself and maps one value to one coordinate in [0, 1] and back.

The coordinate of level i of n is (i + 0.5) / n, so that levels share the interval evenly and rounding never straddles
two. Logarithmic ints spread their levels evenly in log(value) instead. Host-side codecs work in Python floats
(float64).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from metahpo_jax.errors import SpaceError

When = Mapping[str, Any]  # {"parent": value or tuple of values}

INT32 = 2**31 - 1
FLOAT32 = 3.4028234663852886e38
FLOAT32_TINY = 1.1754943508222875e-38  # smaller ones are flushed to 0 on devices


def _bounds(kind: str, low: Any, high: Any, log: Any) -> None:
    for side, value in (("low", low), ("high", high)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise SpaceError(f"{kind}: {side} must be a number, got {value!r} of type {type(value).__name__}.")
        if not math.isfinite(value):
            raise SpaceError(f"{kind}: {side} must be finite, got {value!r}; give a bound that the search may reach.")
    if not isinstance(log, bool):
        raise SpaceError(f"{kind}: log must be True or False, got {log!r}.")
    if low > high:
        raise SpaceError(f"{kind}: low must not exceed high, got low={low!r} and high={high!r}; swap them.")
    if log and low <= 0:
        raise SpaceError(f"{kind}: a log scale needs low > 0, got low={low!r}; raise low or drop log=True.")


@dataclass(frozen=True)
class Float:
    """A real number in [`low`, `high`], on a log scale where `log`. `when` names the parent value that makes it active.

    Raises:
      SpaceError: for bounds that are not finite numbers in order, or that float32 cannot tell apart.
    """

    low: float
    high: float
    log: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        _bounds("Float", self.low, self.high, self.log)
        if max(abs(self.low), abs(self.high)) > FLOAT32:
            raise SpaceError(
                f"Float: bounds must fit float32 (at most 3.4e38 in size), got low={self.low!r} and high={self.high!r}."
            )
        object.__setattr__(self, "low", float(self.low))  # so that Float(0, 1) and Float(0.0, 1.0) are the same
        object.__setattr__(self, "high", float(self.high))
        if self.log and self.low < FLOAT32_TINY:
            raise SpaceError(f"Float: a log scale needs low of at least {FLOAT32_TINY:.2g}, got low={self.low!r}.")
        if self.low != self.high:
            gap, size = self.high - self.low, max(abs(self.low), abs(self.high))
            if gap < max(1e-6 * size, FLOAT32_TINY):
                raise SpaceError(
                    f"Float: the range from low={self.low!r} to high={self.high!r} is lost in float32; "
                    "tune the difference to a fixed offset instead."
                )

    @property
    def levels(self) -> int:
        """Number of distinct values; 0 stands for a continuum."""
        return 0

    def encode(self, value: Any) -> float:
        """Coordinate in [0, 1] of a value."""
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise SpaceError(f"expected a number from {self.low!r} to {self.high!r}, got {value!r}.")
        slack = 1e-6 * (self.high - self.low)
        if not self.low - slack <= value <= self.high + slack:
            raise SpaceError(f"expected a number from {self.low!r} to {self.high!r}, got {value!r}.")
        if self.low == self.high:
            return 0.5
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def decode(self, u: float) -> float:
        """Value at a coordinate in [0, 1]."""
        u = min(max(float(u), 0.0), 1.0)
        if self.low == self.high:
            return float(self.low)
        value = self.low * (self.high / self.low) ** u if self.log else self.low + u * (self.high - self.low)
        return float(min(max(value, self.low), self.high))


@dataclass(frozen=True)
class Int:
    """A whole number from `low` to `high`, both included, on a log scale where `log`.

    Raises:
      SpaceError: for bounds that are not whole numbers in order, or beyond int32.
    """

    low: int
    high: int
    log: bool = False
    when: When | None = None

    def __post_init__(self) -> None:
        _bounds("Int", self.low, self.high, self.log)
        for side, value in (("low", self.low), ("high", self.high)):
            if not isinstance(value, int):
                raise SpaceError(f"Int: {side} must be a whole number, got {value!r}; use Float for real numbers.")
            if abs(value) > INT32:
                raise SpaceError(f"Int: {side} must fit int32 (at most {INT32} in size), got {value!r}.")
        if self.levels > INT32:
            raise SpaceError(
                f"Int: at most {INT32} values fit int32, got low={self.low!r} and high={self.high!r}; narrow the range."
            )

    @property
    def levels(self) -> int:
        """Number of distinct values."""
        return self.high - self.low + 1

    @property
    def _log_edges(self) -> tuple[float, float]:
        return math.log(self.low - 0.5), math.log(self.high + 0.5)

    def encode(self, value: Any) -> float:
        """Coordinate in [0, 1] of a value."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.low <= value <= self.high:
            raise SpaceError(f"expected a whole number from {self.low} to {self.high}, got {value!r}.")
        if self.low == self.high:
            return 0.5
        if self.log:
            low, high = self._log_edges
            return (math.log(value) - low) / (high - low)
        return (value - self.low + 0.5) / self.levels

    def decode(self, u: float) -> int:
        """Value at a coordinate in [0, 1]."""
        u = min(max(float(u), 0.0), 1.0)
        if self.log:
            low, high = self._log_edges
            value = round(math.exp(low + u * (high - low)))
        else:
            value = self.low + math.floor(u * self.levels)
        return min(max(value, self.low), self.high)


@dataclass(frozen=True, init=False)
class Choice:
    """One of several values (str, int, float or bool), in the order given; `ordered` when it means more or less.

    Raises:
      SpaceError: without values, or with values that are equal to one another (1, 1.0 and True are).
    """

    values: tuple[Any, ...]
    ordered: bool = False
    when: When | None = field(default=None)

    def __init__(self, *values: Any, ordered: bool = False, when: When | None = None) -> None:
        if not values:
            raise SpaceError("Choice: give at least one value, got none.")
        for value in values:
            if not isinstance(value, (str, int, float, bool)):
                raise SpaceError(
                    f"Choice: values must be str, int, float or bool, got {value!r}; unpack a list with *."
                )
            if isinstance(value, float) and not math.isfinite(value):
                raise SpaceError(f"Choice: values must be finite, got {value!r}.")
        seen: dict[Any, Any] = {}
        for value in values:
            twin = seen.get(value, seen.get(str(value)))
            if twin is not None:
                raise SpaceError(f"Choice: values must differ, got {twin!r} and {value!r}, which cannot be told apart.")
            seen[value] = seen[str(value)] = value
        if not isinstance(ordered, bool):
            raise SpaceError(f"Choice: ordered must be True or False, got {ordered!r}.")
        object.__setattr__(self, "values", tuple(values))
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "when", when)

    @property
    def levels(self) -> int:
        """Number of distinct values."""
        return len(self.values)

    def encode(self, value: Any) -> float:
        """Coordinate in [0, 1] of a value."""
        for i, known in enumerate(self.values):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return (i + 0.5) / self.levels
        raise SpaceError(f"expected one of {', '.join(map(repr, self.values))}, got {value!r}.")

    def decode(self, u: float) -> Any:
        """Value at a coordinate in [0, 1]."""
        return self.values[min(max(math.floor(float(u) * self.levels), 0), self.levels - 1)]


Dimension = Float | Int | Choice
