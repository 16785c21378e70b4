"""`Space`: an ordered, immutable set of named hyperparameters and everything that follows from it."""

import functools
import hashlib
import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Array, Context, SpaceArrays, no_descriptor
from metahpo_jax.errors import SpaceError
from metahpo_jax.spaces.codec import Kind, activity, snap, values
from metahpo_jax.spaces.dimensions import Choice, Dimension, Float, Int
from metahpo_jax.spaces.features import Columns, columns_of, features

MAX_NAME = 128
MAX_PARENT_LEVELS = 64
_TYPES = {"float": Float, "int": Int, "choice": Choice}


class Space:
    """A search space of `D` named hyperparameters: `Space(lr=Float(1e-4, 1, log=True), opt=Choice("sgd", "adam"))`.

    Conditions: `Float(0, 1, when={"opt": "sgd"})` is active only where `opt` is `"sgd"`; a tuple names several values.
    Names that are not Python identifiers come through `Space.of({"learning rate": Float(...)})`. Spaces are hashable
    and compare by content, order included.

    Raises:
      SpaceError: when there is no hyperparameter, a name is unusable, or a condition names an unknown parent, an
        impossible value, or goes in a circle.
    """

    def __init__(self, **dimensions: Dimension):
        self._dimensions: dict[str, Dimension] = dict(dimensions)
        if not self._dimensions:
            raise SpaceError("Space: give at least one hyperparameter, got none.")
        for name, dimension in self._dimensions.items():
            _check_name(name)
            if not isinstance(dimension, Dimension):
                raise SpaceError(f"Space: {name!r} must be a Float, Int or Choice, got {dimension!r}.")
        self._conditions = {n: self._condition(n, d) for n, d in self._dimensions.items()}
        self._check_cycles()

    @classmethod
    def of(cls, dimensions: Mapping[str, Dimension]) -> "Space":
        """The space of a mapping from names, which may be any printable text, to hyperparameters."""
        bad = [n for n in dimensions if not isinstance(n, str)]
        if bad:
            raise SpaceError(f"Space: names must be text, got {bad[0]!r}.")
        return cls(**dict(dimensions))

    # --- the mapping it is -------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the coordinates."""
        return tuple(self._dimensions)

    @property
    def size(self) -> int:
        """Number of hyperparameters `D`."""
        return len(self._dimensions)

    def __getitem__(self, name: str) -> Dimension:
        if name not in self._dimensions:
            raise SpaceError(f"Space: unknown name {name!r}; known are {', '.join(self.names)}.")
        return self._dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dimensions)

    def __len__(self) -> int:
        return self.size

    def __contains__(self, name: object) -> bool:
        return name in self._dimensions

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    def __repr__(self) -> str:
        return f"Space({', '.join(f'{n}={d!r}' for n, d in self._dimensions.items())})"

    # --- conditions --------------------------------------------------------------------------------------------------

    def _condition(self, name: str, dimension: Dimension) -> tuple[str, tuple[int, ...]] | None:
        """Parent's name and the levels that make `name` active, or None."""
        if dimension.when is None:
            return None
        if not isinstance(dimension.when, Mapping) or len(dimension.when) != 1:
            raise SpaceError(
                f"Space: {name!r} has when={dimension.when!r}; expected one parent, as in when={{'opt': 'sgd'}}."
            )
        ((parent, wanted),) = dimension.when.items()
        if parent not in self._dimensions:
            raise SpaceError(f"Space: {name!r} depends on unknown {parent!r}; known are {', '.join(self.names)}.")
        owner = self._dimensions[parent]
        if not 0 < owner.levels <= MAX_PARENT_LEVELS:
            raise SpaceError(
                f"Space: {name!r} depends on {parent!r}, "
                f"which must be a Choice or an Int of at most {MAX_PARENT_LEVELS} values."
            )
        wanted = tuple(wanted) if isinstance(wanted, (tuple, list, set, frozenset)) else (wanted,)
        if not wanted:
            raise SpaceError(f"Space: {name!r} depends on no value of {parent!r}, so it could never be active.")
        levels = []
        for value in wanted:
            try:
                owner.encode(value)
            except SpaceError as error:
                raise SpaceError(f"Space: {name!r} depends on {parent!r}={value!r}: {error}") from None
            levels.append(_levels(owner).index(value))
        return parent, tuple(sorted(levels))

    def _check_cycles(self) -> None:
        for name in self._dimensions:
            path = [name]
            while (condition := self._conditions[path[-1]]) is not None:
                if condition[0] in path:
                    raise SpaceError(f"Space: conditions go in a circle: {' -> '.join([*path, condition[0]])}.")
                path.append(condition[0])

    # --- codec on the host, in float64 -------------------------------------------------------------------------------

    def encode(self, config: Mapping[str, Any]) -> np.ndarray:
        """Coordinates `[D]` float64 of a configuration; inactive hyperparameters may be absent and sit at 0.5.

        Raises:
          SpaceError: for an unknown or missing name, or a value that the hyperparameter does not have.
        """
        unknown = [n for n in config if n not in self._dimensions]
        if unknown:
            raise SpaceError(f"configuration: unknown name {unknown[0]!r}; known are {', '.join(self.names)}.")
        u = np.full(self.size, 0.5, np.float64)
        for i, (name, dimension) in enumerate(self._dimensions.items()):
            if name in config:
                try:
                    u[i] = dimension.encode(_plain(config[name]))
                except SpaceError as error:
                    raise SpaceError(f"configuration: {name!r}: {error}") from None
        for name in self._dimensions:  # after all given values are known to be valid, those of parents included
            if name not in config and self._is_active(name, config):
                raise SpaceError(f"configuration: {name!r} is missing; expected {self._dimensions[name]!r}.")
        return u

    def decode(self, u: Any) -> dict[str, Any]:
        """Configuration of the active hyperparameters at coordinates `[D]`."""
        u = np.asarray(u, np.float64)
        if u.shape != (self.size,):
            raise SpaceError(f"decode: expected coordinates of shape ({self.size},), got {u.shape}.")
        if not np.isfinite(u).all():
            raise SpaceError(f"decode: coordinate of {self.names[int(np.argmin(np.isfinite(u)))]!r} is not finite.")
        everything = {n: d.decode(c) for (n, d), c in zip(self._dimensions.items(), u, strict=True)}
        return {n: v for n, v in everything.items() if self._is_active(n, everything)}

    def _is_active(self, name: str, config: Mapping[str, Any]) -> bool:
        condition = self._conditions[name]
        if condition is None:
            return True
        parent, levels = condition
        if parent not in config or not self._is_active(parent, config):
            return False
        return _levels(self._dimensions[parent]).index(_plain(config[parent])) in levels

    # --- codec on the device -----------------------------------------------------------------------------------------

    @functools.cached_property
    def arrays(self) -> SpaceArrays:
        """The space as data (NumPy arrays, so that a cached space may be used under any trace)."""
        dims = list(self._dimensions.values())
        d = self.size
        kinds = [
            Kind.FLOAT if isinstance(x, Float) else Kind.INT if isinstance(x, Int) else
            Kind.ORDINAL if x.ordered else Kind.CHOICE for x in dims
        ]  # fmt: skip
        parent = np.full(d, -1, np.int32)
        widest = max([self._dimensions[c[0]].levels for c in self._conditions.values() if c], default=1)
        parent_values = np.zeros((d, widest), bool)
        for i, name in enumerate(self.names):
            if (condition := self._conditions[name]) is not None:
                parent[i] = self.names.index(condition[0])
                parent_values[i, list(condition[1])] = True
        columns: dict[str, Any] = dict(
            kind=np.asarray(kinds, np.int32),
            low=np.asarray([0 if isinstance(x, Choice) else x.low for x in dims], np.float32),
            high=np.asarray([x.levels - 1 if isinstance(x, Choice) else x.high for x in dims], np.float32),
            log=np.asarray([not isinstance(x, Choice) and x.log for x in dims], bool),
            n_choices=np.asarray([x.levels for x in dims], np.int32),
            parent=parent,
            parent_values=parent_values,
            mask=np.ones(d, bool),
        )
        return SpaceArrays(**columns)

    def values(self, u: Array) -> dict[str, Array]:
        """Natural values by name, each `[...]`, of coordinates `[..., D]`: choices as their index."""
        return dict(zip(self.names, jnp.unstack(values(self.arrays, u), axis=-1), strict=True))

    def snap(self, u: Array) -> Array:
        """Coordinates `[..., D]` with discrete ones moved to their level's own."""
        return snap(self.arrays, u)

    def active(self, u: Array) -> Array:
        """Activity mask `[..., D]`."""
        return activity(self.arrays, u)

    @functools.cached_property
    def _columns(self) -> Columns:
        return columns_of(list(self._dimensions.values()))

    @property
    def n_features(self) -> int:
        """Length `F` of what a model sees of a configuration."""
        return len(self._columns.source)

    def features(self, u: Array, active: Array) -> Array:
        """What models see, `[..., F]`, of `u [..., D]` and `active [..., D]`.

        Numbers, ordered choices and choices of two are their coordinates, others are one-hot; then follows a column of
        activity for each conditional hyperparameter. Inactive coordinates are 0.5 and inactive one-hot blocks 0,
        whatever `u` holds.
        """
        return features(self._columns, u, active)

    def context(self, *, budget: int, max_fidelity: float = 1.0, descriptor: Any = None, given: int = 0) -> Context:
        """What a proposer is told before its first trial; `descriptor [m]` may hold NaN where missing."""
        if descriptor is None:
            described, mask = no_descriptor()
        else:
            raw = jnp.asarray(descriptor, jnp.float32)
            mask = jnp.isfinite(raw)
            described = jnp.where(mask, raw, 0.0)
        return Context(
            space=self.arrays,
            descriptor=described,
            descriptor_mask=mask,
            budget=jnp.asarray(budget, jnp.int32),
            max_fidelity=jnp.asarray(max_fidelity, jnp.float32),
            given=jnp.asarray(given, jnp.int32),
        )

    # --- identity ----------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """A plain description that `from_json` reads back."""
        out: dict[str, Any] = {}
        for name, x in self._dimensions.items():
            if isinstance(x, Choice):
                row: dict[str, Any] = {"type": "choice", "values": list(x.values), "ordered": x.ordered}
            else:
                row = {"type": "float" if isinstance(x, Float) else "int", "low": x.low, "high": x.high, "log": x.log}
            if (condition := self._conditions[name]) is not None:
                parent, levels = condition
                known = _levels(self._dimensions[parent])
                row["when"] = {parent: [known[i] for i in levels]}
            out[name] = row
        return out

    @classmethod
    def from_json(cls, description: Any) -> "Space":
        """Reads what `to_json` wrote.

        Raises:
          SpaceError: naming the hyperparameter and the field that is missing, unknown or of the wrong type.
        """
        if not isinstance(description, Mapping):
            raise SpaceError(f"space: expected a table of hyperparameters, got {type(description).__name__}.")
        dimensions: dict[str, Dimension] = {}
        for name, row in description.items():
            if not isinstance(row, Mapping) or row.get("type") not in _TYPES:
                raise SpaceError(f"space: {name!r} needs a type of {', '.join(_TYPES)}, got {row!r}.")
            fields = {"values", "ordered"} if row["type"] == "choice" else {"low", "high", "log"}
            unknown = set(row) - fields - {"type", "when"}
            missing = fields - set(row) - {"log", "ordered"}
            if unknown or missing:
                word, which = ("unknown", unknown) if unknown else ("missing", missing)
                expected = f"a {row['type']} has {sorted(fields)}"
                raise SpaceError(f"space: {name!r} has {word} field {sorted(which)[0]!r}; {expected}.")
            settings = {k: v for k, v in row.items() if k not in ("type", "values")}
            if row["type"] == "choice" and not isinstance(row["values"], (list, tuple)):
                raise SpaceError(f"space: values of {name!r} must be a list, got {row['values']!r}.")
            positional = row["values"] if row["type"] == "choice" else ()
            dimensions[name] = _TYPES[row["type"]](*positional, **settings)
        return cls.of(dimensions)

    @functools.cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical description, order of the hyperparameters included."""
        text = json.dumps(list(self.to_json().items()), separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def difference(self, other: "Space") -> list[str]:
        """What differs in `other`, one phrase per hyperparameter; empty when the spaces are equal."""
        mine, theirs = self.to_json(), other.to_json()
        lines = [f"{n!r} is missing" for n in mine if n not in theirs]
        lines += [f"{n!r} is unknown" for n in theirs if n not in mine]
        changed = [n for n in mine if n in theirs and repr(mine[n]) != repr(theirs[n])]  # repr, since 1 == 1.0 == True
        lines += [f"{n!r} is {theirs[n]}, expected {mine[n]}" for n in changed]
        if not lines and tuple(mine) != tuple(theirs):
            lines.append(f"the order is {', '.join(theirs)}, expected {', '.join(mine)}")
        return lines

    def require_same(self, other: "Space", what: str) -> None:
        """Raises a SpaceError that lists the differences unless `other`, the space of `what`, equals this one."""
        if lines := self.difference(other):
            raise SpaceError(f"{what} was made for another space: {'; '.join(lines)}.")


def _levels(dimension: Dimension) -> Sequence[Any]:
    """Values of a discrete hyperparameter in the order of their levels."""
    return dimension.values if isinstance(dimension, Choice) else range(int(dimension.low), int(dimension.high) + 1)


def _plain(value: Any) -> Any:
    """NumPy scalars (also `np.str_` and zero-dimensional arrays) as Python's own."""
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and np.ndim(value) == 0 else value


def _check_name(name: str) -> None:
    if not name or not name.strip():
        raise SpaceError(f"Space: a name must not be empty, got {name!r}.")
    if len(name) > MAX_NAME:
        raise SpaceError(f"Space: a name must have at most {MAX_NAME} characters, got {len(name)} ({name[:20]!r}...).")
    bad = [c for c in name if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn")]
    if bad:
        raise SpaceError(f"Space: name {name!r} holds the control character {bad[0]!r}; use printable text.")
