"""Incumbents, regret, ranks and intervals; the stored result; tables, curves and the report."""

import hashlib
import io
import itertools
import json
import re
import time

import numpy as np
import pytest
from scipy.stats import rankdata

from metahpo_jax import evaluation
from metahpo_jax.errors import ConfigError, DataError, MetaHPOError, StoreError
from metahpo_jax.evaluation import plots, report, table
from metahpo_jax.evaluation.results import BenchmarkResult, MethodRun, load, require_writable, save
from metahpo_jax.evaluation.statistics import (
    average_ranks,
    bootstrap_mean,
    critical_difference,
    expected_minimum,
    friedman,
    incumbent,
    normalised_regret,
    paired_difference,
    paired_differences,
    solved,
)
from metahpo_jax.evaluation.verdicts import Verdict, sentences, verdicts

EVIL = "<script>alert('x')</script>"


def make_run(name: str, start: float = 0.4, tasks: int = 6, seeds: int = 3, trials: int = 12, **fields) -> MethodRun:
    rng = np.random.default_rng(len(name))
    regret = np.minimum.accumulate(start * rng.uniform(0.3, 1.0, (tasks, seeds, trials)), axis=-1)
    loss = None if fields.get("published") else (2 * regret + 0.1).astype(np.float32)
    return MethodRun(name, regret, loss, **fields)


def make_result(*runs: MethodRun, **fields) -> BenchmarkResult:
    runs = runs or (
        make_run("random", seconds=0.5),
        make_run("gp", 0.1, seconds=12.0),
        make_run("pretrained_gp", 0.05, meta_seconds=90.0, note="theta of today"),
    )
    tasks = runs[0].regret.shape[0]
    return BenchmarkResult(
        benchmark=fields.pop("benchmark", "tabular"),
        protocol="Leave one data set out.",
        tasks=tuple(f"task{i}" for i in range(tasks)),
        groups=tuple(f"base{i // 2}" for i in range(tasks)),
        runs=runs,
        versions={"jax": "0.10.2"},
        command="metahpo bench",
        **fields,
    )


# ----------------------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ([3.0, 5.0, 1.0, 2.0], [3.0, 3.0, 1.0, 1.0]),
        ([np.nan, 3.0, np.nan, 2.0], [np.inf, 3.0, 3.0, 2.0]),
        ([np.nan, np.nan], [np.inf, np.inf]),
        ([2.0, -np.inf, np.inf, 1.0], [2.0, 2.0, 2.0, 1.0]),
        ([4, 2, 3], [4.0, 2.0, 2.0]),
    ],
)
def test_incumbent_ignores_what_failed(loss, expected):
    np.testing.assert_array_equal(incumbent(loss), expected)
    np.testing.assert_array_equal(incumbent([[loss, loss]]), [[expected, expected]])


def test_incumbent_keeps_precision():
    assert incumbent(np.array([1.0, 0.5], np.float32)).dtype == np.float32


def test_regret_is_scaled_per_task():
    best, worst = np.array([1.0, 10.0]), np.array([3.0, 20.0])
    curve = np.array([[np.inf, 3.0, 2.0, 1.0], [30.0, 15.0, 12.0, 9.0]])
    expected = [[1.0, 1.0, 0.5, 0.0], [1.0, 0.5, 0.2, -0.1]]
    np.testing.assert_allclose(normalised_regret(curve, best[:, None], worst[:, None]), expected, rtol=0, atol=1e-15)


def test_regret_of_a_constant_table_is_zero_once_anything_succeeded():
    np.testing.assert_array_equal(normalised_regret([np.inf, 2.0, 2.0], 2.0, 2.0), [1.0, 0.0, 0.0])


@pytest.mark.parametrize(
    ("args", "word"),
    [
        (([np.nan], 0.0, 1.0), "incumbent"),
        (([-np.inf], 0.0, 1.0), "incumbent"),
        (([0.5], np.nan, 1.0), "finite"),
        (([0.5], 0.0, np.inf), "finite"),
        (([0.5], 1.0, 0.0), "below best"),
    ],
)
def test_regret_refuses(args, word):
    with pytest.raises(DataError, match=word):
        normalised_regret(*args)


def test_ranks_agree_with_scipy_and_average_ties():
    regret = np.random.default_rng(0).integers(0, 3, (5, 4, 2, 7)) / 4.0
    ranks = average_ranks(regret)
    assert ranks.shape == regret.shape
    for index in np.ndindex(4, 2, 7):
        np.testing.assert_array_equal(ranks[(slice(None), *index)], rankdata(regret[(slice(None), *index)]))
    np.testing.assert_allclose(ranks.sum(axis=0), 15.0)
    np.testing.assert_array_equal(average_ranks([[1.0], [1.0], [0.0], [1.0]]), [[3.0], [3.0], [1.0], [3.0]])
    np.testing.assert_array_equal(
        average_ranks([[0.1], [0.1 + 2e-7], [0.2]]), [[1.5], [1.5], [3.0]]
    )  # the same row of a table
    with pytest.raises(DataError, match="NaN"):
        average_ranks([[np.nan], [0.0]])


def test_solved_is_exact():
    assert solved([[0.0, 1e-12], [-0.2, 1.0]]) == 0.5


def test_bootstrap_agrees_with_a_plain_loop():
    rng = np.random.default_rng(1)
    groups = rng.integers(0, 9, 40)  # of unequal size
    values = rng.normal(size=(40, 3)) + 0.5 * groups[:, None]
    names = np.unique(groups)
    means = []
    for _ in range(4000):
        drawn = rng.choice(names, size=len(names))
        means.append(np.concatenate([values[groups == name] for name in drawn]).mean(axis=0))
    mean, low, high = bootstrap_mean(values, groups, resamples=4000)
    np.testing.assert_array_equal(mean, values.mean(axis=0))
    spread = np.std(means, axis=0)
    # A 2.5 % quantile of 4000 normal draws has a standard error of 0.042 standard deviations, two differ by 0.06.
    expected = np.quantile(means, [0.025, 0.975], axis=0)
    assert (np.abs(np.stack([low, high]) - expected) < 0.25 * spread).all()
    assert (high - low > 3 * spread).all()


def test_bootstrap_moves_groups_as_a_whole():
    values = np.random.default_rng(2).normal(size=(10, 4))
    once = bootstrap_mean(values, range(10))
    often = bootstrap_mean(np.repeat(values, 25, axis=0), np.repeat(np.arange(10), 25))
    for a, b in zip(once, often, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    naive = bootstrap_mean(np.repeat(values, 25, axis=0), range(250))
    assert (naive.high - naive.low < 0.5 * (often.high - often.low)).all()


def test_bootstrap_covers():
    rng = np.random.default_rng(3)
    inside = []
    for _ in range(200):
        values = np.repeat(rng.normal(size=40), 3) + 0.1 * rng.normal(size=120)
        interval = bootstrap_mean(values, np.repeat(np.arange(40), 3), resamples=300)
        inside.append(interval.low <= 0.0 <= interval.high)
    assert 0.87 < np.mean(inside) <= 0.99


def test_bootstrap_is_reproducible_and_one_group_tells_nothing():
    values = np.random.default_rng(4).normal(size=(8, 2))
    first, second, other = (bootstrap_mean(values, "abcdefgh", seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.low, second.low)
    assert (first.low != other.low).any()
    single = bootstrap_mean(values, ["a"] * 8)
    assert np.isfinite(single.mean).all() and np.isnan(single.low).all() and np.isnan(single.high).all()


def test_paired_difference_sees_what_separate_intervals_hide():
    rng = np.random.default_rng(5)
    hard = rng.normal(size=(30, 1)) * 5.0
    a, b = hard + 0.01 * rng.normal(size=(30, 2)), np.repeat(hard + 0.1, 2, axis=1)
    mean, low, high = paired_difference(a, b, range(30))
    assert (high < 0).all() and np.allclose(mean, -0.1, atol=0.01)
    mirrored = paired_difference(b, a, range(30))
    np.testing.assert_allclose(mirrored.low, -high, rtol=1e-12)
    np.testing.assert_allclose(mirrored.high, -low, rtol=1e-12)


def test_all_differences_at_once_are_those_one_by_one():
    values = np.random.default_rng(6).random((4, 20, 3))
    values[2] = values[1]
    groups = np.arange(20) // 3
    together = paired_differences(values, groups, resamples=500)
    for a in range(4):
        for b in range(4):
            alone = paired_difference(values[a], values[b], groups, resamples=500)
            for part, expected in zip(together, alone, strict=True):
                np.testing.assert_allclose(part[a, b], expected, rtol=1e-9, atol=1e-15)
    assert (together.low[1, 2] == 0).all() and (together.high[1, 2] == 0).all()
    # A difference on one data set only: resamples without it are exactly 0, so the interval does not exclude 0.
    values[2, 0] += 1.0
    assert (paired_differences(values, groups, resamples=500).low[2, 1] == 0).all()


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (6, 2.850), (7, 2.949), (8, 3.031), (10, 3.164)]
)
def test_critical_difference_is_demsars(methods, q):
    """Demsar (2006), table 5 (a)."""
    expected = q * np.sqrt(methods * (methods + 1) / (6 * 14))
    assert critical_difference(methods, 14) == pytest.approx(
        expected, abs=1.1e-3 * expected / q
    )  # three decimals, some rounded up
    assert critical_difference(methods, 14, 0.10) < critical_difference(methods, 14) < critical_difference(methods, 7)


def test_critical_difference_of_demsars_example():
    """Demsar (2006), section 3.2.2: four methods on fourteen data sets."""
    assert critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    assert critical_difference(4, 14, 0.10) == pytest.approx(1.12, abs=0.005)


@pytest.mark.parametrize("methods", [3, 6])
def test_friedman_agrees_with_scipy(methods):
    from scipy.stats import friedmanchisquare

    regret = np.random.default_rng(methods).integers(0, 4, (methods, 12)) + 0.4 * np.arange(methods)[:, None]
    regret[0, :4] = regret[1, :4]
    test = friedman(regret, range(12))
    assert 1e-6 < test.p_value < 0.9
    assert test.p_value == pytest.approx(friedmanchisquare(*regret).pvalue, rel=1e-9)
    np.testing.assert_allclose(test.rank, rankdata(regret, axis=0).mean(axis=1))
    assert test.critical_difference == critical_difference(methods, 12)


def test_friedman_ranks_data_sets_not_runs():
    regret = np.random.default_rng(7).random((3, 8))
    groups = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    means = np.stack([regret[:, groups == g].mean(axis=1) for g in range(3)], axis=1)
    assert friedman(regret, groups).critical_difference == critical_difference(3, 3)
    np.testing.assert_array_equal(friedman(regret, groups).rank, rankdata(means, axis=0).mean(axis=1))
    assert friedman(np.zeros((3, 5)), range(5)).p_value == 1.0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: bootstrap_mean(np.zeros((0, 2)), []), DataError),
        (lambda: bootstrap_mean([1.0, np.inf], "ab"), DataError),
        (lambda: bootstrap_mean([1.0, 2.0], "a"), ConfigError),
        (lambda: bootstrap_mean([1.0, 2.0], "ab", resamples=0), ConfigError),
        (lambda: bootstrap_mean([1.0, 2.0], "ab", level=95), ConfigError),
        (lambda: paired_difference(np.zeros((2, 3)), np.zeros(3), "ab"), ConfigError),
        (lambda: paired_differences(np.full((2, 2, 1), np.nan), "ab"), DataError),
        (lambda: paired_differences(np.zeros((2, 2, 1)), "abc"), ConfigError),
        (lambda: friedman(np.zeros((1, 2)), "ab"), ConfigError),
        (lambda: friedman(np.zeros((2, 2)), "abc"), ConfigError),
        (lambda: friedman([[0.0, np.inf], [0.0, 1.0]], "ab"), DataError),
    ],
)
def test_bootstrap_refuses(call, error):
    with pytest.raises(error):
        call()


# -------------------------------------------------------------------------------------------------------------- results


def test_summary_is_what_it_says():
    result = make_result()
    summary = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (summary["trials"], summary["seeds"]) == (12, 3)
    run = result.runs[1]
    entry = summary["methods"]["gp"]
    assert list(entry["regret"]) == list(entry["rank"]) == [str(t) for t in range(1, 13)]
    assert entry["regret"]["12"] == pytest.approx(run.regret[..., -1].mean(), rel=1e-12)
    low, high = entry["interval"]["12"]
    assert low < entry["regret"]["12"] < high
    assert sum(m["rank"]["5"] for m in summary["methods"].values()) == pytest.approx(6.0)
    assert entry["test_accuracy"] is None
    mean, low, high = summary["difference"]["gp"]["random"]["3"]
    assert low <= mean <= high < 0
    assert mean == pytest.approx((run.regret - result.runs[0].regret)[..., 2].mean(), rel=1e-12)
    assert set(summary["difference"]["gp"]) == {"random", "pretrained_gp"}


def test_unknown_is_null_in_json():
    accuracy = np.full((2, 1, 3), 0.75)
    accuracy[0, 0, 0] = np.nan
    result = make_result(make_run("a", tasks=2, seeds=1, trials=3, test_accuracy=accuracy))
    entry = result.to_json()["methods"]["a"]
    assert entry["test_accuracy"] == {"1": None, "2": 0.75, "3": 0.75}
    assert entry["interval"]["1"] == [None, None]  # both tasks are of one data set


def test_round_trip_is_bitwise(tmp_path):
    accuracy = np.random.default_rng(0).random((6, 3, 12))
    accuracy[0, 0, :2] = np.nan
    names = ("../up", "a/b.regret", EVIL, "größe [red]")
    runs = tuple(
        make_run(name, 0.1 * (i + 1), test_accuracy=accuracy if i % 2 else None) for i, name in enumerate(names)
    )
    assert runs[0].loss is not None
    runs[0].loss[0, 0, 0] = np.inf
    result = make_result(*runs)
    path = tmp_path / "new" / "result.json"
    save(result, path)
    back = load(path)
    assert (back.tasks, back.groups, back.versions, back.command) == (
        result.tasks,
        result.groups,
        result.versions,
        result.command,
    )
    assert [run.name for run in back.runs] == list(names)
    for before, after in zip(runs, back.runs, strict=True):
        assert after.note == before.note and after.seconds == before.seconds
        for curve in ("regret", "loss", "test_accuracy"):
            a, b = getattr(before, curve), getattr(after, curve)
            if a is None:
                assert b is None
            else:
                assert a.dtype == b.dtype and a.tobytes() == b.tobytes()
    assert json.dumps(back.to_json()) == json.dumps(result.to_json())
    assert sorted(p.name for p in path.parent.iterdir()) == ["result.json", "result.npz"]
    first = [(tmp_path / "new" / name).read_bytes() for name in ("result.json", "result.npz")]
    save(back, path)
    assert first == [(tmp_path / "new" / name).read_bytes() for name in ("result.json", "result.npz")]


def test_published_rows_and_settings_come_back(tmp_path):
    runs = (make_run("random"), make_run("GP (published)", 0.1, published="HPO-B, authors' result files"))
    result = make_result(*runs, budgets=(2, 7, 90), baselines=("random",), starts=5, regret_unit="normalised loss")
    path = tmp_path / "result.json"
    save(result, path)
    back = load(path)
    assert [run.published for run in back.runs] == ["", "HPO-B, authors' result files"]
    assert back.runs[0].loss is not None and back.runs[1].loss is None
    assert (back.budgets, back.baselines, back.starts) == ((2, 7, 90), ("random",), 5)
    assert back.regret_unit == "normalised loss" and back.shown == [2, 7]
    content = json.loads(path.read_text())
    assert content["schema"] == 2 and content["starts"] == 5 and content["budgets"] == [2, 7, 90]
    assert content["verdicts"]["random"] == []
    assert content["verdicts"]["GP (published)"] == ["GP (published) is below random at 2 and 7 trials."]


def test_schema_1_loads_with_defaults(tmp_path):
    path = tmp_path / "result.json"
    result = make_result()
    save(result, path)

    def older(content):
        content["schema"] = 1
        for name in ("budgets", "baselines", "starts", "regret_unit", "verdicts"):
            del content[name]
        for method in content["methods"].values():
            del method["published"]

    _edit(older)(path)
    assert json.dumps(load(path).to_json()) == json.dumps(result.to_json())


def test_ten_methods_of_a_large_benchmark_are_summed_up_in_seconds():
    runs = [make_run(str(i), tasks=82, seeds=5, trials=100) for i in range(10)]
    began = time.perf_counter()
    make_result(*runs, baselines=tuple(map(str, range(10)))).to_json()
    assert time.perf_counter() - began < 10.0  # half a second on two idle cores


def _edit(change):
    def damage(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def _flip(path):
    curves = path.with_suffix(".npz")
    raw = bytearray(curves.read_bytes())
    raw[len(raw) // 2] ^= 1
    curves.write_bytes(raw)


def _objects(path):
    """An archive that needs pickle, under a digest that fits."""
    curves = path.with_suffix(".npz")
    np.savez(curves, curve=np.array([{}], dtype=object))
    _edit(lambda c: c.update(curves_sha256=hashlib.sha256(curves.read_bytes()).hexdigest()))(path)


@pytest.mark.parametrize(
    ("damage", "error", "word"),
    [
        (lambda p: p.unlink(), StoreError, "does not exist"),
        (lambda p: p.with_suffix(".npz").unlink(), StoreError, "does not exist"),
        (lambda p: p.write_bytes(p.read_bytes()[:500]), StoreError, "not valid JSON"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), StoreError, "not valid JSON"),
        (lambda p: p.write_text("[1]"), StoreError, "schema None"),
        (_edit(lambda c: c.update(schema=99)), StoreError, "schema 99"),
        (_edit(lambda c: c.pop("tasks")), StoreError, "tasks"),
        (_edit(lambda c: c.update(methods=[])), StoreError, "lacks a field"),
        (_edit(lambda c: c["methods"]["gp"].update(seconds="soon")), StoreError, "lacks a field"),
        (_edit(lambda c: c["methods"].update(other=c["methods"]["gp"])), StoreError, "other.regret"),
        (_edit(lambda c: c["tasks"].pop()), DataError, "6 tasks"),
        (_edit(lambda c: c.update(budgets=3)), StoreError, "lacks a field"),
        (_edit(lambda c: c.update(budgets=[9, 3])), DataError, "budgets"),
        (_edit(lambda c: c.update(starts="five")), StoreError, "lacks a field"),
        (_flip, StoreError, "is not the file"),
        (lambda p: p.with_suffix(".npz").write_bytes(b""), StoreError, "is not the file"),
        (_objects, StoreError, "plain arrays"),
    ],
)
def test_load_names_what_is_wrong(tmp_path, damage, error, word):
    path = tmp_path / "result.json"
    save(make_result(), path)
    damage(path)
    with pytest.raises(error, match=word) as caught:
        load(path)
    assert "result." in str(caught.value)


def test_writing_where_one_cannot(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.json").mkdir()
    for call in (
        lambda: save(make_result(), tmp_path / "file" / "result.json"),
        lambda: save(make_result(), tmp_path / "result.txt"),
        lambda: require_writable(tmp_path / "file" / "result.json"),
        lambda: require_writable(tmp_path / "folder.json"),
        lambda: evaluation.write_report(tmp_path / "file" / "r.html", title="t", lead="", sections=[]),
    ):
        with pytest.raises(StoreError):
            call()
    require_writable(tmp_path / "result.json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.json"]


def test_a_failed_save_leaves_the_old_result(tmp_path, monkeypatch):
    path = tmp_path / "result.json"
    save(make_result(), path)
    old = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        save(make_result(make_run("other")), path)
    assert path.read_bytes() == old
    assert sorted(p.name for p in tmp_path.iterdir()) == ["result.json", "result.npz"]
    assert len(load(path).runs) == 3


_GOOD = np.zeros((2, 1, 3))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: MethodRun("", _GOOD, _GOOD), "empty name"),
        (lambda: MethodRun("a", _GOOD[0], _GOOD[0]), "regret"),
        (lambda: MethodRun("a", _GOOD, _GOOD[:1]), "loss"),
        (lambda: MethodRun("a", _GOOD, _GOOD.astype(int)), "floating"),
        (lambda: MethodRun("a", _GOOD[..., :0], _GOOD[..., :0]), "empty axis"),
        (lambda: MethodRun("a", _GOOD + np.nan, _GOOD), "normalised_regret"),
        (lambda: MethodRun("a", _GOOD, _GOOD, seconds=-1.0), "seconds"),
        (lambda: make_result(make_run("a"), budgets=()), "budgets"),
        (lambda: make_result(make_run("a"), budgets=(0, 5)), "budgets"),
        (lambda: make_result(make_run("a"), budgets=(5, 5)), "budgets"),
        (lambda: make_result(make_run("a"), starts=-1), "starts"),
        (lambda: BenchmarkResult("b", "", (), (), ()), "no method"),
        (lambda: make_result(make_run("a"), make_run("a")), "twice"),
        (lambda: make_result(make_run("a"), make_run("b", trials=3)), "same tasks"),
        (lambda: BenchmarkResult("b", "", ("x",), ("x",), (make_run("a"),)), "1 names"),
    ],
)
def test_results_that_make_no_sense(make, word):
    with pytest.raises(DataError, match=word):
        make()


# ------------------------------------------------------------------------------------------------------------- verdicts

_LEVEL = np.tile([0.3, 0.5], 4)  # of eight tasks, by turns


@pytest.mark.parametrize(
    ("regret", "relation"),
    [
        (np.full(8, 0.3), "below"),
        (np.full(8, 0.5), "above"),
        (_LEVEL, "level with"),
        (np.where(np.arange(8) == 0, 0.3, 0.4), "level with"),  # better on one data set of four, elsewhere the same
        (np.full(8, 0.4), "equal to"),
    ],
)
def test_a_verdict_is_what_the_paired_interval_says(regret, relation):
    def run(name, values):
        return MethodRun(name, np.asarray(values).reshape(8, 1, 1))

    result = make_result(run("new", regret), run("gp", np.full(8, 0.4)), baselines=("gp", "absent"))
    assert verdicts(result) == [Verdict("new", "gp", {1: relation})]
    assert sentences(result) == [f"new is {relation} gp at 1 trial."]


@pytest.mark.parametrize(
    ("relations", "sentence"),
    [
        (
            {1: "level with", 5: "level with", 10: "level with", 20: "below", 50: "below"},
            "pretrained_gp is below portfolio at 20 and 50 trials, level with it at 1, 5 and 10.",
        ),
        (
            {1: "equal to", 5: "above", 10: "below"},
            "pretrained_gp is below portfolio at 10 trials, above it at 5, equal to it at 1.",
        ),
        ({1: "above"}, "pretrained_gp is above portfolio at 1 trial."),
    ],
)
def test_verdicts_are_plain_sentences(relations, sentence):
    assert Verdict("pretrained_gp", "portfolio", relations).sentence == sentence


def test_one_data_set_gives_no_verdict():
    result = make_result(make_run("random", tasks=2), make_run("new", 0.01, tasks=2))
    assert verdicts(result) == [] and result.to_json()["verdicts"] == {"random": [], "new": []}


# --------------------------------------------------------------------------------------------------------------- tables


def _terminal(result, **settings):
    from rich.console import Console

    console = Console(width=140, record=True, file=io.StringIO())
    console.print(evaluation.terminal_table(result, **settings))
    return console.export_text(styles=True)


def test_cells_mark_the_best_of_each_column():
    columns, rows = table.cells(make_result())
    assert columns == ["method", "regret @1", "regret @5", "regret @10", "rank @10", "solved @10", "seconds"]
    best = {row[0].text: [cell.best for cell in row] for row in rows}
    assert best["pretrained_gp"] == [False, True, True, True, True, True, False]
    assert best["random"] == [False, False, False, False, False, True, False]  # nobody solved anything: a tie
    assert rows[2][-1].detail == "+ 90.0 meta"
    assert re.fullmatch(r"\[\.\d{3}, \.\d{3}\]", rows[0][1].detail)


def test_accuracy_has_a_column_where_there_is_any():
    result = make_result(make_run("a", test_accuracy=np.full((6, 3, 12), 0.875)), make_run("b"))
    columns, rows = table.cells(result)
    column = columns.index("test acc. @10")
    assert [(row[column].text, row[column].best) for row in rows] == [("87.5 %", True), ("–", False)]


@pytest.mark.parametrize(("value", "text"), [(0.1234, ".123"), (-0.012, "-.012"), (1.0, "1.000"), (0.9996, "1.000")])
def test_numbers_are_short(value, text):
    assert table.short(value, 3) == text


def test_budgets_beyond_the_run_are_left_out():
    assert table.cells(make_result(), at=(50, 100))[0][1] == "regret @12"
    with pytest.raises(ConfigError, match="from 1"):
        table.cells(make_result(), at=(0, 5))


def test_terminal_table_takes_names_literally():
    text = _terminal(make_result(make_run("[red]a[/red]"), make_run("gp", 0.01)))
    assert "[red]a[/red]" in text and "2 base" not in text and "3 base data sets" in text
    assert "\x1b[1m" in text  # something is bold


def test_markdown_table_is_rectangular_and_escaped():
    text = evaluation.markdown_table(make_result(make_run("a|b"), make_run("gp_*", 0.01)))
    lines = text.splitlines()
    assert len(lines) == 4 and r"a\|b" in text and r"gp\_\*" in text and "**" in text
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1


def _with_published(**fields):
    return make_result(
        make_run("random", seconds=2.0), make_run("GP (published)", 0.1, published="[authors] files"), **fields
    )


def test_published_rows_are_marked_and_their_source_is_told():
    result = _with_published()
    columns, rows = table.cells(result)
    assert [row[0].text for row in rows] == ["random", "GP (published) †"]
    assert [row[columns.index("seconds")].text for row in rows] == ["2.0", "–"]
    note = "† Published, not run by us: GP (published) (from [authors] files)."
    assert note in table.caption(result) and "†" not in table.caption(make_result())
    assert evaluation.markdown_table(result).endswith("\n\n" + note.replace("[", r"\[").replace("]", r"\]") + "\n")
    assert "[authors] files" in " ".join(_terminal(result).split())


def test_tables_follow_the_settings_of_the_result():
    result = make_result(budgets=(2, 7, 90), starts=5, regret_unit="normalised loss")
    assert table.cells(result)[0][1:4] == ["regret @2", "regret @7", "rank @7"]
    assert table.cells(result, at=(3,))[0][1:3] == ["regret @3", "rank @3"]
    assert "counted after 5 given evaluations" in table.caption(result) and "(normalised loss)" in table.caption(result)
    assert "given" not in table.caption(make_result())


# ---------------------------------------------------------------------------------------------------------------- plots


def test_colours_are_stable_and_known_methods_differ():
    ours = [name for name in plots._KNOWN if "published" not in name]
    theirs = [name for name in plots._KNOWN if "published" in name]
    for names in (ours, theirs):
        assert len(names) > 5 and len({plots.colour(name) for name in names}) == len(names)
    assert plots.colour("GP (published)") == plots.colour("gp")
    assert plots.colour("of my own") == plots.colour("of my own")
    assert re.fullmatch("#[0-9a-f]{6}", plots.colour("größe"))


@pytest.mark.parametrize("draw", [plots.regret_curves, plots.rank_curves])
@pytest.mark.parametrize("trials", [1, 12, 60])
def test_curves_have_a_line_and_a_name_per_method(draw, trials):
    result = make_result(make_run("gp$x$", trials=trials), make_run("random", 0.01, trials=trials))
    (axes,) = draw(result).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) == trials and line.get_transform() == axes.transData]
    assert len(curves) == 2
    assert {text.get_text(): text.get_color() for text in axes.texts} == {
        run.name: plots.colour(run.name) for run in result.runs
    }
    expected = result.ranks() if draw is plots.rank_curves else [result.rows(run).mean(axis=0) for run in result.runs]
    for line, values in zip(curves, expected, strict=True):
        np.testing.assert_allclose(line.get_ydata(), values)


@pytest.mark.parametrize("draw", [plots.regret_curves, plots.rank_curves])
def test_published_curves_are_dashed_and_marked(draw):
    axes = draw(_with_published(starts=5)).axes[0]
    solid, dashed = (line for line in axes.lines if line.get_transform() == axes.transData)
    assert not solid.is_dashed() and dashed.is_dashed()
    assert [(text.get_text(), text.get_fontstyle()) for text in axes.texts] == [
        ("random", "normal"),
        ("GP (published) †", "italic"),
    ]
    assert axes.get_xlabel() == "trials after 5 given evaluations"


@pytest.mark.parametrize("draw", [plots.regret_curves, plots.rank_curves])
def test_long_curves_are_thinned_but_keep_their_ends(draw):
    axes = draw(make_result(make_run("a", trials=1000), make_run("b", trials=1000))).axes[0]
    at = axes.lines[0].get_xdata()
    assert len(at) <= 100 and list(at[:5]) == [1, 2, 3, 4, 5] and at[-1] == 1000 and (np.diff(at) > 0).all()


@pytest.mark.parametrize(
    ("ranks", "difference", "bars"),
    [
        ([1.0, 1.5, 2.2, 5.0], 1.0, [(0, 1), (1, 2)]),
        ([1.0, 1.4, 1.8, 3.0], 1.0, [(0, 2)]),
        ([1.0, 2.0, 3.0], 1.0, []),
        ([2.0, 2.0, 2.0], 0.5, [(0, 2)]),
    ],
)
def test_bars_join_what_cannot_be_told_apart(ranks, difference, bars):
    assert plots._bars(np.array(ranks), difference) == bars


def _overlaps(figure):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    return [
        (figure.axes[0].texts[j].get_text(), figure.axes[0].texts[i].get_text())
        for i, one in enumerate(boxes)
        for j in range(i)
        if one.overlaps(boxes[j])
    ]


@pytest.mark.parametrize("methods", [2, 5, 14])
@pytest.mark.parametrize(
    "draw", [lambda r: plots.critical_difference_diagram(r, 5), plots.regret_curves, plots.rank_curves]
)
@pytest.mark.parametrize("alike", [False, True])
def test_no_name_lies_over_another(methods, draw, alike):
    runs = [
        make_run(f"portfolio_then_empirical_gaussian{i}"[-9 - 2 * i :], 0.1 if alike else 0.01 * (i + 1), tasks=60)
        for i in range(methods)
    ]
    assert _overlaps(draw(make_result(*runs))) == []


def test_a_long_benchmark_name_fits():
    figure = plots.critical_difference_diagram(make_result(benchmark="TaskSet, leave one architecture family out"), 12)
    assert _overlaps(figure) == []


def test_critical_difference_diagram_shows_ranks_and_bars():
    runs = [make_run("first", 0.001), make_run("second", 0.002), make_run("third", 0.9, published="files")]
    for run, level in zip(runs, (0.1, 0.1, 0.9), strict=True):
        run.regret[:] = level
    result = make_result(*(MethodRun(r.name, np.repeat(r.regret, 10, 0), published=r.published) for r in runs))
    test = result.friedman(5)
    assert test.rank.tolist() == [1.5, 1.5, 3.0] and test.p_value < 1e-6
    (axes,) = plots.critical_difference_diagram(result, 5).axes
    words = [text.get_text() for text in axes.texts]
    assert {"first", "second", "third †", "1.50", "3.00"} <= set(words)
    assert "tabular: mean rank at 5 trials, 30 data sets" in words
    assert f"critical difference {test.critical_difference:.2f}" in words
    assert len([line for line in axes.lines if (line.get_gid() or "").startswith("bar")]) == 1
    for trial in (0, 13):
        with pytest.raises(ConfigError, match="trial must be"):
            plots.critical_difference_diagram(result, trial)
    with pytest.raises(ConfigError, match="at least 2"):
        plots.critical_difference_diagram(make_result(make_run("alone")), 5)


def test_scale_of_regret():
    assert plots.regret_curves(make_result(make_run("a"), make_run("b", 0.01))).axes[0].get_yscale() == "log"
    assert plots.regret_curves(make_result(make_run("a"))).axes[0].get_yscale() == "linear"
    below = make_run("a")
    live = MethodRun("live", below.regret - 0.2, below.loss)
    assert plots.regret_curves(make_result(below, live)).axes[0].get_yscale() == "linear"


@pytest.mark.parametrize("places", [[0.5, 0.5, 0.5], [0.0, 0.01, 1.0, 0.99], list(np.zeros(40)), [0.3]])
def test_labels_are_moved_apart(places):
    moved = plots._spread(np.array(places), 0.06)
    assert moved.min() >= -1e-9 and moved.max() <= 1 + 1e-9
    gaps = np.diff(np.sort(moved))
    assert (gaps >= min(0.06, 1 / max(len(places) - 1, 1)) - 1e-9).all()
    assert (np.argsort(moved, kind="stable") == np.argsort(places, kind="stable")).all()


def test_figures_are_saved_by_suffix(tmp_path):
    figure = plots.rank_curves(make_result())
    for suffix, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")):
        plots.save_figure(figure, tmp_path / f"f{suffix}")
        assert (tmp_path / f"f{suffix}").read_bytes().startswith(magic)
    with pytest.raises(ConfigError, match=r"\.png"):
        plots.save_figure(figure, tmp_path / "f.exe")


# --------------------------------------------------------------------------------------------------------------- report


@pytest.fixture
def page(tmp_path):
    """Every kind of section, with a script in every name, value, caption and message."""
    result = make_result(make_run(EVIL, note=EVIL), make_run("gp", 0.05), benchmark=EVIL)
    lines = np.random.default_rng(0).random((5, 3))
    lines[0, 1] = lines[1, 0] = np.nan
    sections = [
        report.Text(EVIL, f"{EVIL}\n\n    {EVIL}"),
        report.Table(EVIL, *table.cells(result), EVIL),
        report.Table("plain", [EVIL, "n"], [[EVIL, 1], ["b", 0.123456]]),
        report.Figure(EVIL, plots.regret_curves(result), EVIL),
        report.Figure("ranks", plots.rank_curves(result)),
        report.ParallelCoordinates(
            EVIL, [(EVIL, [(0.5, EVIL)]), ("b", []), ("c", [])], lines, [1.0, np.nan, 0.5, np.inf, 2.0], EVIL
        ),
        report.Trials(EVIL, [{EVIL: EVIL, "loss": 1.5}, {"loss": float("nan"), "status": "DIVERGED"}, {"loss": 0.5}]),
    ]
    path = tmp_path / "report.html"
    evaluation.write_report(path, title=EVIL, lead=EVIL, sections=sections)
    return path.read_text()


def test_report_escapes_everything(page):
    assert "<script" not in page.lower()
    assert page.count("&lt;script&gt;") > 15
    assert not re.search(r"\son\w+=", page)


def test_report_loads_nothing(page):
    policy = re.search(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    assert policy and "default-src 'none'" in policy[1] and "script-src" not in policy[1]
    rest = page.replace("http-equiv", "")
    assert "http" not in rest and "src=" not in rest and "@import" not in rest
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))
    assert all(link.startswith("#") for link in re.findall(r"url\(([^)]*)\)", page))


def test_report_is_well_formed(page):
    ids = re.findall(r'\sid="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', page)) <= set(ids)
    assert page.count("<svg") == page.count("</svg>") == 3
    assert page.count("<section") == 7
    for name in ("table", "tr", "td", "section", "figure", "details", "p", "g"):
        assert len(re.findall(rf"<{name}(?: [^>]*[^/>])?>", page)) == page.count(f"</{name}>"), name


def test_report_marks_failed_trials_and_the_best(page):
    assert page.count('<path d="M') >= 5 and page.count('class="failed"') == 2
    assert "2 failed, dashed" in page
    assert '<tr class="dim">' in page and "<b>0.5</b>" in page


def test_parallel_coordinates_leave_a_gap_where_inactive():
    section = report.ParallelCoordinates(
        "h", [("a", []), ("b", []), ("c", [])], [[0.5, np.nan, 0.5], [0, 0.5, 1]], [1, 2]
    )
    paths = {title: d for d, title in re.findall(r'<path d="([^"]*)".*?<title>(.*?)</title>', section.html("k"))}
    assert paths["loss 1"].count("M") == 2 and "C" not in paths["loss 1"]
    assert paths["loss 2"].count("M") == 1 and paths["loss 2"].count("C") == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: report.Table("h", ["a", "b"], [[1]]),
        lambda: report.ParallelCoordinates("h", [("a", [])], np.zeros((2, 3)), [1, 2]),
        lambda: report.ParallelCoordinates("h", [("a", [])], np.zeros((2, 1)), [1]),
        lambda: report.ParallelCoordinates("h", [("a", [])], [[1.5]], [1]),
        lambda: report.ParallelCoordinates("h", [], np.zeros((2, 0)), [1, 2]),
        lambda: evaluation.write_report("report.pdf", title="t", lead="", sections=[]),
    ],
)
def test_report_refuses(call):
    with pytest.raises(MetaHPOError):
        call()


def test_empty_sections_are_drawn():
    assert "0 trials" in report.Trials("h", []).html("k")
    assert "<table" in report.Table("h", ["a"], []).html("k")
    assert "<svg" in report.ParallelCoordinates("h", [("a", [])], np.zeros((0, 1)), np.zeros(0)).html("k")


def test_expected_minimum_against_all_draws() -> None:
    values = np.random.default_rng(0).random(8)
    for trials in range(1, 9):
        every = [min(drawn) for drawn in itertools.combinations(values, trials)]
        assert expected_minimum(values, trials) == pytest.approx(np.mean(every), rel=1e-12)
    for trials in (0, 9):
        with pytest.raises(ConfigError, match="from 1 to 8"):
            expected_minimum(values, trials)
