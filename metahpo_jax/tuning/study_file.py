"""A study as one JSON file: what it was made with, and its events in their order."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from metahpo_jax.base import Key, Status
from metahpo_jax.errors import SpaceError, StoreError
from metahpo_jax.files import write_atomically
from metahpo_jax.metadata.files import MAX_JSON_BYTES, read_bytes, strict_json
from metahpo_jax.spaces import Space
from metahpo_jax.tuning.records import Asked, Event, Told

FORMAT, VERSION = "metahpo-jax study", 1
TOLD = (Status.OK, Status.DIVERGED, Status.FAILED, Status.STOPPED)


class Header(NamedTuple):
    """What a study was made with."""

    space: Space
    key: Key
    budget: int
    max_fidelity: float
    descriptor: tuple[float, ...] | None  # NaN where missing


def write(path: Path, header: Header, events: list[Event]) -> None:
    """Writes a study, whole or not at all. NaN, which JSON does not have, is null.

    Raises:
      StoreError: when the file cannot be written, or would be too long to be read again.
    """
    content = {
        "format": FORMAT,
        "version": VERSION,
        "space": header.space.to_json(),
        "key": {
            "implementation": str(jax.random.key_impl(header.key)),
            "data": np.asarray(jax.random.key_data(header.key)).tolist(),
        },
        "budget": header.budget,
        "max_fidelity": header.max_fidelity,
        "descriptor": None if header.descriptor is None else [_or_null(x) for x in header.descriptor],
        "events": [_to_json(event) for event in events],
    }
    data = (json.dumps(content, allow_nan=False) + "\n").encode()
    if len(data) > MAX_JSON_BYTES:
        raise StoreError(
            f"{path}: {len(events)} events take {len(data)} bytes, but a study file holds {MAX_JSON_BYTES}."
        )
    write_atomically(path, data)


def read(path: Path) -> tuple[Header, list[Event]]:
    """Reads a study and checks everything in it.

    Raises:
      StoreError: when the file is missing, damaged or of another version; names the event and the field.
    """
    raw = strict_json(read_bytes(path.parent, path.name, MAX_JSON_BYTES), str(path))
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        raise StoreError(f"{path}: not a study; expected a file that Study.save wrote.")
    if raw.get("version") != VERSION:
        raise StoreError(
            f"{path}: version {raw.get('version')!r} cannot be read, expected {VERSION}; use the metahpo-jax that wrote it."
        )
    top = _Fields(raw, f"{path}")
    try:
        space = Space.from_json(raw.get("space"))
    except SpaceError as error:
        raise StoreError(f"{path}: {error}") from None
    header = Header(
        space=space,
        key=_key(_Fields(raw.get("key"), f"{path}: key")),
        budget=top.get("budget", "a whole number of at least 1", lambda x: _is_whole(x) and 1 <= x < 2**31),
        max_fidelity=float(top.get("max_fidelity", "a positive number", _is_positive)),
        descriptor=_descriptor(top),
    )
    events: list[Event] = []
    pending: set[int] = set()
    rows = 0
    for i, one in enumerate(top.get("events", "a list", lambda x: isinstance(x, list))):
        fields = _Fields(one, f"{path}: event {i}")
        if "trial" in fields.raw:
            event: Event = _asked(fields, space.size)
            pending.add(rows)
            rows += 1
        else:
            event = _told(fields, pending)
            pending.remove(event.row)
        events.append(event)
    return header, events


class _Fields:
    """A table whose fields are checked as they are read."""

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise StoreError(f"{where}: expected a table, got {type(raw).__name__}; save the study again.")
        self.raw: dict[str, Any] = raw
        self.where = where

    def get(self, name: str, expected: str, holds: Callable[[Any], bool]) -> Any:
        value = self.raw.get(name)
        if not holds(value):
            text = repr(value)[:80] if name in self.raw else "nothing"
            raise StoreError(f"{self.where}: {name!r} must be {expected}, got {text}; save the study again.")
        return value


def _asked(fields: _Fields, dimensions: int) -> Asked:
    u = fields.get(
        "u",
        f"{dimensions} numbers from 0 to 1",
        lambda x: isinstance(x, list) and len(x) == dimensions and all(_is_real(c) and 0 <= c <= 1 for c in x),
    )
    return Asked(
        trial=fields.get("trial", "a whole number", lambda x: _is_whole(x) and 0 <= x < 2**31),
        u=tuple(float(c) for c in u),
        fidelity=float(fields.get("fidelity", "a positive number", _is_positive)),
    )


def _told(fields: _Fields, pending: set[int]) -> Told:
    names = [status.name for status in TOLD]
    status = Status[fields.get("status", f"one of {', '.join(names)}", lambda x: x in names)]
    loss = float(fields.get("loss", "a number", _is_real)) if status in (Status.OK, Status.STOPPED) else math.nan
    return Told(
        row=fields.get("row", "the row of a pending trial", lambda x: _is_whole(x) and x in pending),
        loss=loss,
        cost=float(fields.get("cost", "a number that is not negative", lambda x: _is_real(x) and x >= 0)),
        fidelity=float(fields.get("fidelity", "a positive number", _is_positive)),
        status=status,
        reason=fields.get("reason", "text", lambda x: isinstance(x, str)),
    )


def _to_json(event: Event) -> dict[str, Any]:
    if isinstance(event, Asked):
        return dataclasses.asdict(event)
    return dataclasses.asdict(event) | {"loss": _or_null(event.loss), "status": event.status.name}


def _key(fields: _Fields) -> Key:
    name = fields.get("implementation", "a name", lambda x: isinstance(x, str))
    words = fields.get(
        "data",
        "a list of words of 32 bits",
        lambda x: isinstance(x, list) and all(_is_whole(w) and 0 <= w < 2**32 for w in x),
    )
    try:
        return jax.random.wrap_key_data(jnp.asarray(words, jnp.uint32), impl=name)
    except (TypeError, ValueError):
        raise StoreError(f"{fields.where}: {len(words)} words are no key of {name!r}; save the study again.") from None


def _descriptor(top: _Fields) -> tuple[float, ...] | None:
    entries = top.get(
        "descriptor",
        "a list of numbers or null",
        lambda x: x is None or (isinstance(x, list) and all(e is None or _is_real(e) for e in x)),
    )
    return None if entries is None else tuple(math.nan if e is None else float(e) for e in entries)


def _or_null(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    """A number that float32 does not turn into infinity; whole numbers of any length are compared, not converted."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= 3.4e38


def _is_positive(value: Any) -> bool:
    return _is_real(value) and value > 0
