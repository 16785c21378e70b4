"""The codec, activity, features, identity and conversions of search spaces, each against the host's own arithmetic."""

import functools
import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metahpo_jax.errors import SpaceError
from metahpo_jax.spaces import (
    Choice,
    Dimension,
    Float,
    Int,
    Kind,
    Space,
    activity,
    from_configspace,
    from_optuna,
    snap,
    to_configspace,
    to_optuna,
    values,
)

INT32 = 2**31 - 1

FLAT: dict[str, Dimension] = {
    "float": Float(-2.0, 3.0),
    "float_zero": Float(0.0, 0.6),
    "float_widest": Float(-3e38, 3e38),
    "float_constant": Float(0.3, 0.3),
    "log_float": Float(1e-6, 1.0, log=True),
    "log_float_widest": Float(1e-37, 3e38, log=True),
    "log_float_constant": Float(0.3, 0.3, log=True),
    "int": Int(-3, 11),
    "int_big": Int(10**6, 10**6 + 99),
    "int_constant": Int(7, 7),
    "int_many": Int(0, 10**5),
    "log_int": Int(1, 128, log=True),
    "log_int_many": Int(1, 30_000, log=True),
    "log_int_narrow": Int(60_000, 70_000, log=True),
    "log_int_constant": Int(5, 5, log=True),
    "choice": Choice("sgd", "adam", "adamw"),
    "choice_two": Choice(False, True),
    "choice_one": Choice("only"),
    "choice_mixed": Choice("auto", 2, 0.5, True),
    "ordered": Choice(16, 32, 64, 128, 256, ordered=True),
}
WIDEST: dict[str, Dimension] = {
    "int_widest": Int(1, INT32),
    "int_symmetric": Int(-(2**30), 2**30 - 2),
    "log_int_widest": Int(1, INT32, log=True),
}
SPACE = Space.of(FLAT)

CONDITIONAL = Space(
    leaf=Float(0.0, 1.0, when={"middle": (2, 3)}),  # the child comes before its parent
    kind=Choice("tree", "net", "linear"),
    middle=Int(1, 4, when={"root": True}),
    root=Choice(False, True, when={"kind": ("net", "tree")}),
    deepest=Choice("a", "b", "c", when={"leaf_gate": "on"}),
    leaf_gate=Choice("off", "on", ordered=True, when={"middle": 3}),
    free=Float(1e-3, 1.0, log=True),
    late=Int(1, 8, log=True, when={"log_parent": (1, 5, 6)}),
    log_parent=Int(1, 6, log=True),
)


def discrete_only(dimension: Dimension) -> list[Any]:
    """All values of a small discrete hyperparameter, the ends and a spread of a large one."""
    if isinstance(dimension, Choice):
        return list(dimension.values)
    assert isinstance(dimension, Int)
    low, high = dimension.low, dimension.high
    if high - low < 300:
        return list(range(low, high + 1))
    spread = np.unique(np.geomspace(1, high - low, 300).astype(np.int64))
    return [low, *(low + int(i) for i in spread), *(high - int(i) for i in spread)]


def edges(dimension: Dimension) -> list[float]:
    """0, 1, beyond, and both sides of borders between levels."""
    inner = [k / dimension.levels for k in range(1, min(dimension.levels, 40))]
    if isinstance(dimension, Int) and dimension.log:
        start, stop = np.log(dimension.low - 0.5), np.log(dimension.high + 0.5)
        borders = dimension.low + 0.5 + np.arange(min(dimension.levels - 1, 40))
        inner = list((np.log(borders) - start) / (stop - start))
    sides = [np.nextafter(np.float32(x), np.float32(to)) for x in inner for to in (0, 1)]
    return [0.0, 1.0, -0.1, 1.1, 1e-30, 1 - 2**-24, *inner, *map(float, sides)]


def native(dimension: Dimension, value: Any) -> float:
    """A host value as `space.values` gives it: choices as their index."""
    return dimension.values.index(value) if isinstance(dimension, Choice) else value


def on_host(dimension: Dimension, u: np.ndarray) -> np.ndarray:
    """Host values `[n]` float64 at coordinates `[n]`."""
    return np.array([native(dimension, dimension.decode(float(x))) for x in u], np.float64)


def points(space: Space, n: int, seed: int = 0) -> np.ndarray:
    """Random coordinates `[n, D]` float32."""
    return np.random.default_rng(seed).random((n, space.size)).astype(np.float32)


def host_active(space: Space, u: np.ndarray) -> np.ndarray:
    """Activity mask `[n, D]` by decoding: a configuration holds the active names alone."""
    return np.array([[name in config for name in space] for config in map(space.decode, u)])


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n, d in (FLAT | WIDEST).items() if d.levels])
def test_round_trip_is_exact_for_discrete_values(name: str) -> None:
    dimension = (FLAT | WIDEST)[name]
    space = Space.of({name: dimension})
    for value in discrete_only(dimension):
        u = space.encode({name: value})
        back = space.decode(u)[name]
        assert back == value and type(back) is type(value)
        assert 0.0 <= u[0] <= 1.0
        if name in FLAT:  # others have more levels than float32 has numbers
            assert space.decode(u.astype(np.float32))[name] == value


@pytest.mark.parametrize("width", [1, 10, 1000, INT32 - 1])
@pytest.mark.parametrize("log", [False, True])
@settings(max_examples=60)
@given(data=st.data())
def test_round_trip_is_exact_for_any_int(width: int, log: bool, data: st.DataObject) -> None:
    low = data.draw(st.integers(1, INT32 - width) if log else st.integers(-INT32, INT32 - width))
    value = data.draw(st.integers(low, low + width))
    dimension = Int(low, low + width, log=log)
    assert dimension.decode(dimension.encode(value)) == value


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("low", "high"), [(1e-6, 1.0), (1e-4, 1.0), (8.0, 4e5), (0.5, 0.6)])
@settings(max_examples=60)
@given(fraction=st.floats(0, 1))
def test_round_trip_of_log_floats(low: float, high: float, dtype: type, fraction: float) -> None:
    dimension = Float(low, high, log=True)
    value = min(max(low * (high / low) ** fraction, low), high)
    assert dimension.decode(float(dtype(dimension.encode(value)))) == pytest.approx(value, rel=1e-6, abs=0)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.6), (-2.0, 3.0), (-1e6, 1e6), (1.0, 2.0)])
@settings(max_examples=60)
@given(fraction=st.floats(0, 1))
def test_round_trip_of_floats(low: float, high: float, dtype: type, fraction: float) -> None:
    dimension = Float(low, high)
    value = min(max(low + fraction * (high - low), low), high)
    back = dimension.decode(float(dtype(dimension.encode(value))))
    assert back == pytest.approx(
        value, rel=1e-6, abs=1e-6 * (high - low) if dtype is np.float32 else 1e-12 * (high - low)
    )


def test_levels_share_the_interval_evenly() -> None:
    u = (np.arange(3000) + 0.5) / 3000
    for dimension in (Int(2, 4), Choice("a", "b", "c")):
        levels = [native(dimension, dimension.decode(x)) for x in u]
        assert np.unique(levels, return_counts=True)[1].tolist() == [1000, 1000, 1000]
    assert [Int(2, 4).encode(x) for x in (2, 3, 4)] == pytest.approx([1 / 6, 3 / 6, 5 / 6])


# --- host and device -------------------------------------------------------------------------------------------------


def check_values(dtype: type, rtol: dict[str, float]) -> None:
    """Device values against host values of the same coordinates, at random and at edges."""
    n = 300
    columns = [np.concatenate([points(SPACE, n)[:, i], np.resize(edges(SPACE[x]), 140)]) for i, x in enumerate(SPACE)]
    stacked = np.stack(columns, -1).astype(np.float32)
    device = SPACE.values(jnp.asarray(stacked, dtype))
    for name, u in zip(SPACE, stacked.T, strict=True):
        dimension = SPACE[name]
        host = functools.partial(on_host, dimension)
        got = np.asarray(device[name], np.float64)
        if dimension.levels:
            # On a border between two levels, rounding may choose either of them; nowhere else.
            slack = 4 * np.finfo(np.float32).eps
            below, above = host(u - slack), host(u + slack)
            assert np.all((got == host(u)) | ((got >= below) & (got <= above) & (below != above))), name
            assert (below == above)[:n].mean() > 0.8, name
        else:
            assert isinstance(dimension, Float)
            size = 0.0 if dimension.log else abs(dimension.low) + abs(dimension.high)
            tolerance = rtol.get(name, 2e-6)
            np.testing.assert_allclose(got, host(u), rtol=tolerance, atol=tolerance * size, err_msg=name)


def test_device_values_equal_host_values() -> None:
    check_values(np.float32, {"log_float_widest": 2e-5})  # its exponent spans 176, of which float32 keeps 7 digits


def test_device_values_equal_host_values_in_float64(x64: None) -> None:
    check_values(np.float64, {"log_float": 2e-7, "float": 2e-7})  # the bounds are float32


@pytest.mark.parametrize("name", list(WIDEST))
def test_device_values_of_the_widest_ints(name: str) -> None:
    space = Space.of({name: WIDEST[name]})
    u = points(space, 500)
    host = np.array([space.decode(x)[name] for x in u], np.float64)
    np.testing.assert_allclose(np.asarray(space.values(jnp.asarray(u))[name], np.float64), host, rtol=1e-5, atol=300)


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
def test_snap_is_idempotent_and_equals_encode_of_decode(space: Space) -> None:
    u = points(space, 200)
    snapped = np.asarray(space.snap(jnp.asarray(u)))
    assert snapped.dtype == np.float32
    np.testing.assert_array_equal(np.asarray(space.snap(jnp.asarray(snapped))), snapped)
    expected = np.array([space.encode(space.decode(x)) for x in u])
    active = host_active(space, u)
    np.testing.assert_array_equal(expected[~active], 0.5)
    apart = np.abs(snapped - expected)[active]
    assert np.mean(apart > 2e-6) < 0.002 and apart.max() < 2e-4  # next to a border of very many levels: one level apart


@pytest.mark.parametrize("name", list(FLAT | WIDEST))
def test_snap_of_edges(name: str) -> None:
    dimension = (FLAT | WIDEST)[name]
    space = Space.of({name: dimension})
    u = jnp.asarray(np.asarray(edges(dimension), np.float32)[:, None])
    once = space.snap(u)
    np.testing.assert_array_equal(np.asarray(space.snap(once)), np.asarray(once))
    assert bool(jnp.all((once >= 0) & (once <= 1)))
    if name in FLAT and dimension.levels:
        np.testing.assert_array_equal(np.asarray(space.values(once)[name]), np.asarray(space.values(u)[name]))


def test_snap_is_idempotent_where_levels_are_finer_than_float32() -> None:
    space = Space.of(WIDEST)
    u = jnp.asarray(points(space, 4000))
    once = space.snap(u)
    np.testing.assert_array_equal(np.asarray(space.snap(once)), np.asarray(once))
    np.testing.assert_array_equal(np.asarray(once)[:, :2], np.asarray(u)[:, :2])
    assert not np.array_equal(once[:, 2], u[:, 2])  # small values of a log axis do have a place of their own


def test_snap_in_float64(x64: None) -> None:
    space = Space.of(WIDEST)
    u = jnp.asarray(np.random.default_rng(0).random((200, space.size)))
    once = space.snap(u)
    assert once.dtype == jnp.float64
    np.testing.assert_allclose(np.asarray(space.snap(once)), np.asarray(once), atol=1e-12)
    assert SPACE.snap(jnp.zeros((SPACE.size,), jnp.float32)).dtype == jnp.float32


# --- activity --------------------------------------------------------------------------------------------------------


def test_activity_equals_the_host() -> None:
    u = np.asarray(CONDITIONAL.snap(jnp.asarray(points(CONDITIONAL, 1500))))
    expected = host_active(CONDITIONAL, u)
    np.testing.assert_array_equal(np.asarray(CONDITIONAL.active(jnp.asarray(u))), expected)
    assert 0 < expected.mean(0).min() < 1  # every dimension is active somewhere, and some are not everywhere
    assert expected[:, 1].all() and expected[:, 6].all()


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_inactivity_travels_down_a_chain(length: int, reverse: bool) -> None:
    chain: dict[str, Dimension] = {"x0": Choice("off", "on")}
    chain |= {f"x{i}": Choice("off", "on", when={f"x{i - 1}": "on"}) for i in range(1, length)}
    space = Space.of(dict(reversed(chain.items())) if reverse else chain)
    for broken in range(length):
        u = np.array([0.25 if name == f"x{broken}" else 0.75 for name in space], np.float32)
        expected = [int(name[1:]) <= broken for name in space]
        assert np.asarray(space.active(jnp.asarray(u))).tolist() == expected


def test_a_given_parent_is_checked_before_a_missing_child() -> None:
    with pytest.raises(SpaceError, match=r"'kind'.*expected one of"):
        CONDITIONAL.encode({"kind": "forest", "free": 0.1, "log_parent": 2})
    with pytest.raises(SpaceError, match="'middle' is missing"):
        CONDITIONAL.encode({"kind": "net", "root": True, "free": 0.1, "log_parent": 2})
    assert CONDITIONAL.encode({"kind": "linear", "free": 0.1, "log_parent": 2})[0] == 0.5


# --- features --------------------------------------------------------------------------------------------------------


def test_features_are_constant_where_inactive() -> None:
    u = CONDITIONAL.snap(jnp.asarray(points(CONDITIONAL, 300)))
    active = CONDITIONAL.active(u)
    x = np.asarray(CONDITIONAL.features(u, active))
    assert x.shape == (300, CONDITIONAL.n_features) and x.dtype == np.float32 and np.isfinite(x).all()
    for junk in (0.0, 0.99, np.nan, np.inf):
        other = CONDITIONAL.features(jnp.where(active, u, junk), active)
        np.testing.assert_array_equal(np.asarray(other), x)


def test_features_are_one_hot_and_coordinates() -> None:
    space = Space(a=Float(0, 1), c=Choice("x", "y", "z"), b=Choice(False, True), o=Choice(1, 2, 4, ordered=True))
    assert space.n_features == 6
    for i, value in enumerate(("x", "y", "z")):
        u = jnp.asarray(space.encode({"a": 0.3, "c": value, "b": True, "o": 4}), jnp.float32)
        x = np.asarray(space.features(u, space.active(u)))
        np.testing.assert_allclose(x, [0.3, *np.eye(3)[i], 0.75, 5 / 6], rtol=1e-6)


def test_features_append_activity() -> None:
    space = Space(
        opt=Choice("sgd", "adam"), momentum=Float(0, 1, when={"opt": "sgd"}), c=Choice(*"pqr", when={"opt": "adam"})
    )
    u = jnp.asarray([[0.25, 0.9, 0.5], [0.75, 0.9, 0.5]], jnp.float32)
    expected = [[0.25, 0.9, 0, 0, 0, 1, 0], [0.75, 0.5, 0, 1, 0, 0, 1]]
    np.testing.assert_allclose(np.asarray(space.features(u, space.active(u))), expected, rtol=1e-6)


# --- transformations and types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL], ids=["flat", "conditional"])
@pytest.mark.parametrize("wide", [False, True])
def test_jit_and_vmap_change_nothing(space: Space, wide: bool) -> None:
    def everything(u: jax.Array) -> dict[str, jax.Array]:
        active = space.active(u)
        return {
            "values": values(space.arrays, u),
            "snap": space.snap(u),
            "active": active,
            "features": space.features(u, active),
        }

    with jax.enable_x64(wide):
        u = jnp.asarray(points(space, 24), jnp.float64 if wide else jnp.float32)
        plain = everything(u)
        lanes = jax.jit(jax.vmap(everything))(u)
        stacked = {n: x.reshape(24, -1) for n, x in everything(u.reshape(4, 6, -1)).items()}
        for name, x in plain.items():
            # XLA contracts multiply and add differently in every program: floats may differ by a rounding.
            np.testing.assert_allclose(lanes[name], x, rtol=2e-5, err_msg=name)
            np.testing.assert_allclose(stacked[name], x, rtol=2e-5, err_msg=name)
            assert x.dtype == (jnp.dtype(bool) if name == "active" else u.dtype), name


def test_space_arrays_hold_the_documented_types(x64: None) -> None:
    types = dict(kind="i4", low="f4", high="f4", log="?", n_choices="i4", parent="i4", parent_values="?", mask="?")
    for space in (SPACE, CONDITIONAL, Space.of(WIDEST)):
        for name, dtype in types.items():
            column = getattr(space.arrays, name)
            assert column.dtype == np.dtype(dtype), name
            assert column.shape[0] == space.size and column.ndim == (2 if name == "parent_values" else 1)
    arrays = CONDITIONAL.arrays
    names = CONDITIONAL.names
    assert [names[p] if p >= 0 else None for p in arrays.parent] == [
        "middle", None, "root", "kind", "leaf_gate", "middle", None, "log_parent", None
    ]  # fmt: skip
    assert np.flatnonzero(arrays.parent_values[0]).tolist() == [1, 2]  # offsets from low of an int
    assert np.flatnonzero(arrays.parent_values[7]).tolist() == [0, 4, 5]
    assert arrays.parent_values.shape == (9, 6)
    by_name = dict(zip(SPACE.names, SPACE.arrays.kind, strict=True))
    assert [by_name[n] for n in ("float", "int", "choice", "ordered")] == [
        Kind.FLOAT, Kind.INT, Kind.CHOICE, Kind.ORDINAL
    ]  # fmt: skip


def test_padding_is_inert() -> None:
    """A space padded to a larger `D` keeps its values, and the padding sits at 0 and is never active."""
    n = CONDITIONAL.size
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, 3)] + [(0, 0)] * (x.ndim - 1)), CONDITIONAL.arrays)
    padded = padded.replace(parent=padded.parent.at[n:].set(-1))
    u = jnp.pad(jnp.asarray(points(CONDITIONAL, 20)), [(0, 0), (0, 3)], constant_values=0.7)
    snapped = np.asarray(snap(padded, u))
    np.testing.assert_array_equal(snapped[:, :n], np.asarray(CONDITIONAL.snap(u[:, :n])))
    np.testing.assert_array_equal(snapped[:, n:], 0)
    np.testing.assert_array_equal(np.asarray(values(padded, u))[:, n:], 0)
    assert not np.asarray(activity(padded, u))[:, n:].any()


def test_context_masks_missing_descriptors() -> None:
    context = CONDITIONAL.context(budget=20, max_fidelity=81.0, descriptor=[1.0, float("nan"), -2.0, float("inf")])
    assert context.descriptor.tolist() == [1.0, 0.0, -2.0, 0.0]
    assert context.descriptor_mask.tolist() == [True, False, True, False]
    assert (int(context.budget), float(context.max_fidelity)) == (20, 81.0)
    assert (context.budget.dtype, context.max_fidelity.dtype) == (jnp.int32, jnp.float32)
    bare = CONDITIONAL.context(budget=3)
    assert bare.descriptor.shape == bare.descriptor_mask.shape == (0,) and float(bare.max_fidelity) == 1.0


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [SPACE, CONDITIONAL, Space.of(WIDEST), Space.of({"learning rate": Float(0, 1)})])
def test_json_round_trip(space: Space) -> None:
    back = Space.from_json(json.loads(json.dumps(space.to_json())))
    assert back == space and back.hash == space.hash and hash(back) == hash(space)
    assert back.names == space.names and space.difference(back) == []
    space.require_same(back, "the prior")


def test_order_and_type_matter_and_spelling_does_not() -> None:
    ab, ba = Space(a=Int(1, 2), b=Float(0, 1)), Space(b=Float(0, 1), a=Int(1, 2))
    assert ab != ba and ab.hash != ba.hash
    assert ab.difference(ba) == ["the order is b, a, expected a, b"]
    assert Space(a=Int(1, 2), b=Float(0.0, 1.0)) == ab
    assert Space(a=Choice(1, 2)) != Space(a=Choice(1.0, 2.0))
    assert len(Space(a=Choice(1, 2)).difference(Space(a=Choice(1.0, 2.0)))) == 1
    one, two = ({"p": ("x", "y")}, {"p": ["y", "x"]})
    spaces = [Space(p=Choice("x", "y", "z"), q=Float(0, 1, when=when)) for when in (one, two)]
    assert spaces[0] == spaces[1] and len(set(spaces)) == 1
    assert spaces[0] != "Space"


DIFFERENCES = {
    "missing": (Space(b=Float(0, 1)), ["'a' is missing"]),
    "unknown": (Space(a=Int(1, 2), b=Float(0, 1), c=Int(1, 2)), ["'c' is unknown"]),
    "bounds": (Space(a=Int(1, 3), b=Float(0, 1)), ["'a' is {.*'high': 3.*}, expected {.*'high': 2.*}"]),
    "condition": (Space(a=Int(1, 2), b=Float(0, 1, when={"a": 1})), [r"'b' is {.*'when': {'a': \[1\]}}, expected"]),
    "both": (Space(x=Int(1, 2), b=Float(0, 2)), ["'a' is missing", "'x' is unknown", "'b' is"]),
}


@pytest.mark.parametrize("case", list(DIFFERENCES))
def test_differences_are_sentences(case: str) -> None:
    mine = Space(a=Int(1, 2), b=Float(0, 1))
    other, expected = DIFFERENCES[case]
    lines = mine.difference(other)
    assert len(lines) == len(expected)
    with pytest.raises(SpaceError, match=r"^the prior was made for another space: ") as error:
        mine.require_same(other, "the prior")
    for pattern in expected:
        assert error.match(pattern)


# --- other libraries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "space",
    [
        CONDITIONAL,
        Space.of({n: d for n, d in FLAT.items() if "constant" not in n and "widest" not in n and d.levels != 1}),
    ],
    ids=["conditional", "flat"],
)
def test_configspace_both_ways(space: Space) -> None:
    pytest.importorskip("ConfigSpace")
    other = to_configspace(space)
    back = from_configspace(other)
    # ConfigSpace sorts the hyperparameters; apart from that, nothing may differ.
    assert Space.of({name: back[name] for name in space}) == space
    other.seed(0)
    for sampled in other.sample_configuration(40):
        config = dict(sampled)
        again = space.decode(space.encode(config))
        assert set(again) == set(config)  # the same hyperparameters are active
        assert {type(v).__module__ for v in again.values()} == {"builtins"}
        for name, value in config.items():
            wanted = pytest.approx(float(value), rel=1e-6) if isinstance(space[name], Float) else value
            assert again[name] == wanted


def test_configspace_constants_and_numpy_strings() -> None:
    cs = pytest.importorskip("ConfigSpace")
    other = cs.ConfigurationSpace({"k": 3, "c": ["x", "y"], "o": cs.OrdinalHyperparameter("o", ["lo", "hi"])})
    space = from_configspace(other)
    assert space["k"] == Choice(3) and space["o"] == Choice("lo", "hi", ordered=True)
    assert space.decode(space.encode({"k": 3, "c": np.str_("y"), "o": np.str_("hi")}))["c"] == "y"
    assert space.to_json()["c"]["values"] == ["x", "y"] and type(space.to_json()["c"]["values"][0]) is str
    assert from_configspace(to_configspace(Space(f=Float(2, 2), i=Int(3, 3))))["i"] == Choice(3)


def test_configspace_would_round_small_bounds() -> None:
    pytest.importorskip("ConfigSpace")
    with pytest.raises(SpaceError, match=r"^ConfigSpace: 'x': .*low=1e-15"):
        to_configspace(Space(x=Float(1e-15, 1.0, log=True)))


def refuse_forbidden(cs: Any, other: Any) -> None:
    other.add(cs.ForbiddenEqualsClause(other["b"], "q"))


def refuse_conjunction(cs: Any, other: Any) -> None:
    other.add(
        cs.AndConjunction(
            cs.EqualsCondition(other["x"], other["a"], "p"), cs.EqualsCondition(other["x"], other["b"], "q")
        )
    )


def refuse_inequality(cs: Any, other: Any) -> None:
    other.add(cs.GreaterThanCondition(other["x"], other["n"], 2))


def refuse_normal(cs: Any, other: Any) -> None:
    other.add(cs.NormalFloatHyperparameter("normal", mu=0, sigma=1, lower=-2, upper=2))


def refuse_weights(cs: Any, other: Any) -> None:
    other.add(cs.CategoricalHyperparameter("weighted", ["u", "v"], weights=[0.1, 0.9]))


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (refuse_forbidden, "forbidden clauses.*'?b'?.*q"),
        (refuse_conjunction, "only equal and in conditions.*x"),
        (refuse_inequality, "only equal and in conditions.*x"),
        (refuse_normal, "'normal': a NormalFloatHyperparameter"),
        (refuse_weights, "'weighted': weights"),
    ],
)
def test_configspace_refusals_name_the_culprit(spoil: Callable[[Any, Any], None], named: str) -> None:
    cs = pytest.importorskip("ConfigSpace")
    other = cs.ConfigurationSpace({"a": ["p", "q"], "b": ["p", "q"], "n": (1, 5), "x": (0.0, 1.0)})
    spoil(cs, other)
    with pytest.raises(SpaceError, match=f"^ConfigSpace: .*{named}"):
        from_configspace(other)


def test_optuna_both_ways() -> None:
    od = pytest.importorskip("optuna.distributions")
    space = Space.of({n: d for n, d in FLAT.items() if not (isinstance(d, Choice) and d.ordered)})
    assert from_optuna(to_optuna(space)) == space
    distribution = to_optuna(SPACE)["ordered"]
    assert distribution == od.CategoricalDistribution((16, 32, 64, 128, 256))
    stepped = from_optuna({"f": od.FloatDistribution(0, 1, step=0.25), "i": od.IntDistribution(1, 9, step=4)})
    assert stepped["f"] == Choice(0.0, 0.25, 0.5, 0.75, 1.0, ordered=True)
    assert stepped["i"] == Choice(1, 5, 9, ordered=True)


def test_optuna_refusals_name_the_culprit() -> None:
    od = pytest.importorskip("optuna.distributions")
    with pytest.raises(SpaceError, match=r"Optuna.*condition of 'leaf'"):
        to_optuna(CONDITIONAL)
    refused = {
        "at most 1024 steps": od.FloatDistribution(0, 1, step=1e-5),
        "values must be": od.CategoricalDistribution((None, 1)),
        "fit int32": od.IntDistribution(0, 2**40),
        "a str": "uniform",
    }
    for message, distribution in refused.items():
        with pytest.raises(SpaceError, match=f"^Optuna: 'x': .*{message}"):
            from_optuna({"x": distribution})
