"""Benchmarks: what is held out, what regret is, the published starts and rows, and sentences for what is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_archive

from metahpo_jax.errors import ConfigError, StoreError
from metahpo_jax.evaluation.benchmarks import BENCHMARKS, HPOB_STARTS, Benchmark, hpob_starts, load_benchmark
from metahpo_jax.evaluation.protocol import run_benchmark
from metahpo_jax.evaluation.splits import by_base
from metahpo_jax.metadata import PACKAGED, save_archive

TRIALS = 100
SEEDS = 5
NEEDS_DATA = [name for name in BENCHMARKS if name not in PACKAGED]


@pytest.fixture(scope="module")
def hpob_folder(tmp_path_factory) -> Path:
    """HPO-B in miniature: two data sets over one space, 120 and 130 configurations, and runs of two published methods."""
    data = tmp_path_factory.mktemp("data")
    folder = data / "hpob"
    (folder / "results").mkdir(parents=True)
    rng = np.random.default_rng(0)
    pools = {f"4796_{name}": rng.random((n, 3)).astype(np.float32) for name, n in (("23", 120), ("31", 130))}
    np.savez(folder / "hpob_data.npz", allow_pickle=False, **pools)
    described = {"4796": {"variables_order": ["minsplit", "cp"]}}
    (folder / "meta-dataset-descriptors.json").write_text(json.dumps(described))
    (folder / "meta-test-tasks-per-space.json").write_text(json.dumps({"4796": ["23", "31"]}))
    for method in ("Random", "GP"):
        curves: dict[str, dict] = {}
        for name, pool in pools.items():
            scaled = (pool[:, -1] - pool[:, -1].min()) / np.ptp(pool[:, -1])
            for seed in range(SEEDS):
                first = float(np.sort(scaled)[20 * seed + 10])
                later = np.maximum.accumulate(np.concatenate([[first], np.linspace(first, 1.0, TRIALS)]))
                curves.setdefault(name.split("_")[1], {})[f"test{seed}"] = later.tolist()
        (folder / "results" / f"{method}.json").write_text(json.dumps({"4796": curves}))
    return data


def test_hpob_gives_every_method_the_published_starts(hpob_folder: Path) -> None:
    benchmark = load_benchmark("hpob", hpob_folder)
    published = json.loads((hpob_folder / "hpob" / "results" / "GP.json").read_text())["4796"]
    assert benchmark.starts is not None and benchmark.starts.shape == (2, SEEDS, HPOB_STARTS)
    for t, task in enumerate(benchmark.archive.tasks):
        for seed in range(SEEDS):
            rows = benchmark.starts[t, seed]
            assert len(set(rows.tolist())) == HPOB_STARTS
            regret = benchmark.regret(t, task.scored[rows].astype(np.float64))
            assert regret.min() == regret[0] == pytest.approx(1.0 - published[task.base][f"test{seed}"][0], abs=1e-6)
    result = run_benchmark(benchmark, ["random"], trials=3, seeds=2)
    ours, theirs = result.runs[0], result.runs[1]
    assert [run.name for run in result.runs] == ["random", "GP (published)", "Random (published)"]
    assert theirs.published and not ours.published and result.starts == HPOB_STARTS
    for t, task in enumerate(benchmark.archive.tasks):
        for seed in range(2):
            curve = published[task.base][f"test{seed}"]
            np.testing.assert_allclose(theirs.regret[t, seed], 1.0 - np.array(curve[1:4]))
            assert ours.regret[t, seed, 0] <= 1.0 - curve[0] + 1e-6, "the starts count"


def test_the_cold_protocol_has_no_starts(hpob_folder: Path) -> None:
    cold = load_benchmark("hpob-cold", hpob_folder)
    assert cold.starts is None and not cold.published and len(cold.tested) == 2


def test_starts_are_drawn_among_rows_that_share_the_published_value() -> None:
    loss = np.array([0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 0.9], np.float32)
    drawn = [hpob_starts(loss, 0.5, seed) for seed in range(60)]
    assert {rows[0] for rows in drawn} == {1, 2, 3}
    assert all(0 not in rows for rows in drawn), "no start is better than the published best"
    assert {row for rows in drawn for row in rows} == {1, 2, 3, 4, 5, 6, 7}


@pytest.mark.parametrize("name", NEEDS_DATA)
def test_missing_data_is_a_sentence_that_says_what_to_get_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    folder = name.split("-")[0].replace("svm143", "svm")
    for data in (None, tmp_path):
        with pytest.raises(StoreError, match="get .* put ") as error:
            load_benchmark(name, data)
        assert folder in str(error.value)


def test_regret_is_a_share_of_the_range_or_raw() -> None:
    archive = tiny_archive()
    scored = archive.tasks[0].scored.astype(np.float64)
    middle = 0.25 * scored.min() + 0.75 * scored.max()
    for raw, expected in ((False, 0.75), (True, 0.75 * np.ptp(scored))):
        benchmark = Benchmark("tiny", archive, by_base(archive), "", "", trials=3, raw_regret=raw)
        assert benchmark.regret(0, np.array([middle]))[0] == pytest.approx(expected)
        worst = benchmark.regret(0, np.array([np.inf]))[0]
        assert worst == pytest.approx(np.ptp(scored) if raw else 1.0), "no success yet counts as the worst"


def test_an_imported_table_is_a_benchmark_with_any_split(tmp_path: Path) -> None:
    folder = save_archive(tiny_archive(), tmp_path / "table")
    assert {fold.name for fold in load_benchmark(str(folder)).folds} == {"group-0", "group-1"}
    by_size = load_benchmark(str(folder), split="size")
    assert len(by_size.folds) == 1 and by_size.name.endswith("/size")


def test_unknown_names_are_sentences(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'lcbench'"):
        load_benchmark("lcbnch")
    with pytest.raises(ConfigError, match="unknown split"):
        load_benchmark("bundled", split="bases")
