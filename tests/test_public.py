"""Public tables: each format is written here in miniature, so that nothing needs to be downloaded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metahpo_jax.base import Status
from metahpo_jax.errors import DataError, StoreError
from metahpo_jax.metadata import Archive
from metahpo_jax.metadata.public import hpob, lcbench, openml100, svm, taskset
from metahpo_jax.metadata.public.arrays import encode, end_at_divergence
from metahpo_jax.metadata.public.folder import SOURCES, require
from metahpo_jax.spaces import Choice, Float, Int, Space

NAN = np.nan

# --- tiny tables, each in the layout of the real one --------------------------------------------------------------------

NETS = [
    dict(batch_size=16, learning_rate=1e-4, max_dropout=0.5, max_units=64, momentum=0.1, num_layers=1, weight_decay=0.1),
    dict(batch_size=71, learning_rate=0.0018, max_dropout=0.0, max_units=293, momentum=0.99, num_layers=4, weight_decay=0.02),
    dict(batch_size=512, learning_rate=0.1, max_dropout=1.0, max_units=1024, momentum=0.9, num_layers=5, weight_decay=1e-5),
]  # fmt: skip
ACCURACY = {"car": [75.0, 90.5, 60.25], "adult": [84.0, 76.0, 85.5]}


def write_lcbench(data: Path) -> None:
    folder = data / "lcbench"
    folder.mkdir(parents=True)
    rows = np.array([[net[column] for column in lcbench.COLUMNS] for net in NETS], np.float32)
    tables = {
        name: np.column_stack([rows, np.array(accuracy, np.float32)]).astype(np.float32)
        for name, accuracy in ACCURACY.items()
    }
    np.savez(folder / "lcbench_data.npz", allow_pickle=False, **tables)


def lcbench_run(net: dict[str, Any], curve: list[Any], final: float | None = None) -> dict[str, Any]:
    """A run of the official file: `curve` starts before training and ends after it with one entry more."""
    results = {"final_test_accuracy": 1.0} | ({} if final is None else {"final_val_accuracy": final})
    return {
        "config": {**net, "network": "shapedmlpnet"},
        "log": {"epoch": list(range(len(curve))), "Train/val_accuracy": curve},
        "results": {**results, "instances": 1728, "OpenML_task_id": 146821},
    }


def write_lcbench_official(data: Path, name: str = "data_2k_lw.json") -> None:
    folder = data / "lcbench"
    folder.mkdir(parents=True)
    whole = [10.0, *np.linspace(50.0, 99.0, 50).tolist(), 99.0]
    runs = {
        "car": [lcbench_run(NETS[0], whole, 98.5), lcbench_run(NETS[1], whole[:4]), lcbench_run(NETS[2], [10.0, 40.0, None, None])],
        "adult": [lcbench_run(net, [10.0, *[60.0 + i] * 51]) for i, net in enumerate(NETS)],
    }  # fmt: skip
    content = {task: {str(i): run for i, run in enumerate(rows)} for task, rows in runs.items()}
    (folder / name).write_text(json.dumps(content))


# rbf with C = 1/8 and gamma = 0.05, rbf that MetaBO's parser drops (C = 1), poly of degree 3, linear
SVMS = np.array(
    [[1, 0, 0, -0.5, np.log10(0.05) / 4, 0], [1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, np.log10(3)], [0, 0, 1, 0.5, 0, 0],
     [1, 0, 0, 1, 0.75, 0]]
)  # fmt: skip


def write_svm(data: Path) -> None:
    folder = data / "svm"
    folder.mkdir(parents=True)
    np.savez(
        folder / "svm50.npz",
        allow_pickle=False,
        tasks=np.array(["A9A", "monk-2"]),
        columns=np.array(svm.COLUMNS),
        configs=SVMS,
        accuracy=np.array([[0.5, 0.6, 0.7, 0.8, 0.9], [0.9, 0.1, 0.2, 0.3, 0.4]]),
        meta_features=np.array([[1.0, 2.0], [3.0, 4.0]]),
    )
    (folder / "split_iclr2020.json").write_text(json.dumps({"train": ["monk-2"], "test": ["A9A"]}))


RNNS = {"patch32_GRU64_avg_bs128": "GRU", "patch32_IRNN64_relu_avg_bs128": "IRNN", "patch128_LSTM128_E128_bs64": "LSTM"}


def write_taskset(data: Path) -> None:
    folder = data / "taskset"
    folder.mkdir(parents=True)
    adam = np.array(
        [
            [1e-3, 0.9, 0.999, 1e-8, 1e-8, 1e-4, 1e-7, 1e-6],
            [1e-8, 0.0005, 0.0018, 1e-10, 9.6, 9.3, 1e-4, 1e-3],
            [9.6, 0.9999, 0.999999, 975.0, 1.0, 1.0, 1e-5, 1e-5],
        ]
    )
    loss = np.full((3, 3, 3, 4), 7.0, np.float32)  # task, configuration, split, point
    loss[:, 0, 1] = [0.7, 0.6, 0.5, 0.4]
    loss[:, 1, 1] = [0.8, 1e18, NAN, NAN]
    loss[:, 2, 1] = [0.9, 0.8, 0.7, 1e18]
    np.savez(
        folder / "taskset12.npz",
        allow_pickle=False,
        tasks=np.array([f"FixedTextRNNClassification_imdb_{name}" for name in RNNS]),
        configs=adam,
        hyperparameters=np.array(taskset.COLUMNS),
        splits=np.array(["train", "valid", "test"]),
        loss=loss,
    )


ADABOOST = """% {"flow_id": 6970}
@RELATION openml-meta-flow-6970

@ATTRIBUTE adaboostclassifier__algorithm {SAMME, SAMME.R}
@ATTRIBUTE adaboostclassifier__learning_rate NUMERIC
@ATTRIBUTE adaboostclassifier__base_estimator__max_depth NUMERIC
@ATTRIBUTE adaboostclassifier__n_estimators NUMERIC
@ATTRIBUTE columntransformer__numeric__imputer__strategy {median, mean, most_frequent}
@ATTRIBUTE predictive_accuracy NUMERIC
@ATTRIBUTE task_id NUMERIC

@DATA
SAMME,0.1376,9,161,median,0.75,11
SAMME.R,0.0436,2,198,mean,0.5,3
SAMME,1.9,1,50,most_frequent,0.25,3
SAMME.R,0.01,10,500,mean,0.5,11
SAMME.R,0.5,4,400,mean,0.875,11
"""
FOREST = """@RELATION openml-meta-flow-6969
@ATTRIBUTE randomforestclassifier__bootstrap {True, False}
@ATTRIBUTE randomforestclassifier__criterion {entropy, gini}
@ATTRIBUTE randomforestclassifier__max_depth {None}
@ATTRIBUTE randomforestclassifier__max_features NUMERIC
@ATTRIBUTE randomforestclassifier__max_leaf_nodes {None}
@ATTRIBUTE randomforestclassifier__min_samples_leaf {18, 20, 2, 7, 1}
@ATTRIBUTE randomforestclassifier__min_samples_split {9, 19, 2}
@ATTRIBUTE randomforestclassifier__min_weight_fraction_leaf NUMERIC
@ATTRIBUTE randomforestclassifier__n_estimators {100}
@ATTRIBUTE columntransformer__numeric__imputer__strategy {median, most_frequent, mean}
@ATTRIBUTE predictive_accuracy NUMERIC
@ATTRIBUTE task_id NUMERIC
@DATA
True,entropy,None,0.8,None,18,9,0.0,100,median,0.9,3
False,gini,None,0.2,None,1,2,0.0,100,mean,0.8,3
True,gini,None,0.3,None,20,19,0.0,100,mean,0.7,11
False,gini,None,0.4,None,2,2,0.0,100,mean,0.7,11
"""


def write_openml100(data: Path) -> None:
    folder = data / "openml100"
    folder.mkdir(parents=True)
    (folder / "adaboost.arff").write_text(ADABOOST)
    (folder / "random_forest.arff").write_text(FOREST)
    (folder / "task_qualities.json").write_text(
        '{"11": {"NumberOfInstances": 625.0, "ClassEntropy": NaN},'
        ' "3": {"NumberOfInstances": 3196.0, "ClassEntropy": 0.5, "MaxKurtosis": 1e300}}'
    )


POOL = np.array([[0.0, 1.0, 0.5], [0.25, 0.5, 0.75], [1.0, 0.0, 0.25]], np.float32)


def write_hpob_notes(folder: Path) -> None:
    described = {"4796": {"variables_order": ["minsplit", "cp"]}, "5970": {"variables_order": ["alpha", "lambda"]}}
    (folder / "meta-dataset-descriptors.json").write_text(json.dumps(described))
    tests = {"4796": ["23", "3549"], "5860": ["14965"]}
    (folder / "meta-test-tasks-per-space.json").write_text(json.dumps(tests))


def write_hpob(data: Path) -> None:
    folder = data / "hpob"
    (folder / "results").mkdir(parents=True)
    write_hpob_notes(folder)
    np.savez_compressed(
        folder / "hpob_data.npz", allow_pickle=False, **{"4796_23": POOL, "4796_9903": POOL[:2], "5970_23": POOL[::-1]}
    )
    seeds = {f"test{i}": [0.1 * i] * 100 + [1] for i in (3, 0, 4, 1, 2)}  # in any order, whole numbers among them
    for method in ("Random", "FSBO2", "GP-C"):
        (folder / "results" / f"{method}.json").write_text(json.dumps({"4796": {"23": seeds}}))
    short = {seed: points[:6] for seed, points in seeds.items()}
    (folder / "results" / "RF.json").write_text(json.dumps({"4796": {"23": short}}))


def write_hpob_official(data: Path) -> None:
    folder = data / "hpob"
    folder.mkdir(parents=True)
    write_hpob_notes(folder)

    def pool(rows: np.ndarray) -> dict[str, Any]:
        return {"X": rows[:, :-1].tolist(), "y": rows[:, -1:].tolist()}

    constant = POOL.copy()
    constant[:, -1] = 0.5
    files = {
        "test": {"4796": {"23": pool(POOL)}},
        "train": {"4796": {"9903": pool(POOL[:2]), "7": pool(constant)}, "5970": {"23": pool(POOL)}},
        "validation": {"4796": {"11": pool(POOL[::-1])}},
    }
    for name, content in files.items():
        (folder / f"meta-{name}-dataset.json").write_text(json.dumps(content))


READERS: dict[str, tuple[Callable[[Path], None], Callable[[Path | None], Archive]]] = {
    "lcbench": (write_lcbench, lcbench.read),
    "lcbench official": (write_lcbench_official, lcbench.read),
    "svm": (write_svm, svm.read),
    "svm rbf": (write_svm, svm.read_rbf),
    "taskset": (write_taskset, taskset.read),
    "openml100": (write_openml100, openml100.read),
    "hpob": (write_hpob, hpob.read),
    "hpob official": (write_hpob_official, hpob.read),
}


def task_of(archive: Archive, name: str) -> Any:
    return next(task for task in archive.tasks if task.name == name)


# --- what all readers share ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_reader_gives_a_sound_archive_of_the_declared_types(name: str, tmp_path: Path) -> None:
    write, read = READERS[name]
    write(tmp_path)
    archive = read(tmp_path)
    archive.validate()
    for task in archive.tasks:
        assert (task.u.dtype, task.loss.dtype, task.status.dtype) == (np.float32, np.float32, np.int8)
        assert task.descriptor.dtype == np.float32
        for row in task.u:  # every coordinate is that of a configuration of the space
            space = archive.spaces[task.space]
            np.testing.assert_allclose(space.encode(space.decode(row)), row, atol=1e-6)
    assert read(tmp_path).content_hash == archive.content_hash


@pytest.mark.parametrize("name", READERS)
def test_missing_table_says_what_to_get_and_where_to_put_it(name: str, tmp_path: Path) -> None:
    read = READERS[name][1]
    table = name.split()[0]
    with pytest.raises(
        StoreError, match=f"{table} needs --data, the folder that holds lcbench/, svm/.*: get .*{table}/"
    ):
        read(None)
    with pytest.raises(StoreError, match=f"{table}.* is missing: get .*, and put .* into .*{table}"):
        read(tmp_path)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("harm", ["truncated", "empty", "garbage", "flipped", "scratched"])
def test_damaged_file_is_a_sentence(name: str, harm: str, tmp_path: Path) -> None:
    write, read = READERS[name]
    write(tmp_path)
    table = name.split()[0]
    path = max((tmp_path / table).glob("*.npz"), default=None) or max(
        (tmp_path / table).glob("*data_2k*"), default=None
    )
    path = path or next((tmp_path / table).glob("*test-dataset.json"), None) or tmp_path / table / "random_forest.arff"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    harmed = {
        "truncated": content[: middle + 3],
        "empty": b"",
        "garbage": b"<html>404</html>",
        "flipped": content[:40] + bytes(255 - b for b in content[40:]),
        "scratched": content[:middle] + b"\xff" * 8 + content[middle + 8 :],
    }[harm]
    path.write_bytes(harmed)
    with pytest.raises(StoreError, match=f"{path.name}.* damaged or another file of that name: get "):
        read(tmp_path)


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lcbench").mkdir()
    np.savez(tmp_path / "lcbench" / "lcbench_data.npz", car=np.array([{}, "x"], object))
    with pytest.raises(StoreError, match="lcbench_data.npz cannot be read .*pickle"):
        lcbench.read(tmp_path)


@pytest.mark.parametrize(
    ("write", "read", "file", "array"),
    [
        (write_svm, svm.read, "svm/svm50.npz", "accuracy"),
        (write_taskset, taskset.read, "taskset/taskset12.npz", "loss"),
        (write_lcbench, lcbench.read, "lcbench/lcbench_data.npz", "car"),
        (write_hpob, hpob.read, "hpob/hpob_data.npz", "4796_23"),
    ],
)
def test_array_of_another_shape_is_a_sentence(
    write: Callable[[Path], None], read: Callable[[Path], Archive], file: str, array: str, tmp_path: Path
) -> None:
    write(tmp_path)
    with np.load(tmp_path / file) as arrays:
        content = dict(arrays)
    content[array] = content[array][0]
    np.savez(tmp_path / file, allow_pickle=False, **content)
    with pytest.raises(StoreError, match="shape .* damaged or another file"):
        read(tmp_path)


def test_every_table_has_a_source_and_the_first_missing_file_is_named(tmp_path: Path) -> None:
    for table in SOURCES:
        (tmp_path / table).mkdir()
        (tmp_path / table / "here").touch()
        assert require(tmp_path, table, ("here",)) == tmp_path / table
        with pytest.raises(StoreError, match=f"put gone into .*{table}"):
            require(tmp_path, table, ("here", "gone", "too"))


# --- arrays -------------------------------------------------------------------------------------------------------------


def test_encode_equals_the_codec_row_by_row() -> None:
    space = Space(
        kernel=Choice("rbf", "poly"), rate=Float(1e-3, 1.0, log=True), n=Int(1, 9, log=True),
        degree=Int(2, 5, when={"kernel": "poly"}),
    )  # fmt: skip
    columns = {
        "kernel": np.array(["poly", "rbf", "poly"]),
        "rate": np.array([1.0, 0.5, 1e-3]),
        "n": np.array([9.0, 1.0, 3.0]),
        "degree": np.array([2, 5, 5]),
    }
    expected = [
        space.encode(dict(kernel="poly", rate=1.0, n=9, degree=2)),
        space.encode(dict(kernel="rbf", rate=0.5, n=1)),
        space.encode(dict(kernel="poly", rate=1e-3, n=3, degree=5)),
    ]
    got = encode(space, columns, "table")
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("column", "sentence"),
    [({"n": np.array([1.0, 2.5])}, "table, column 'n': .*2.5"), ({"n": np.array([1, 10])}, "'n': .*10"),
     ({"n": np.array([1.0, NAN])}, "'n': .*nan"), ({"m": np.array([1, 2])}, "'n' is missing; got m")],
)  # fmt: skip
def test_encode_names_what_lies_outside(column: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        encode(Space(n=Int(1, 9)), column, "table")


def test_curves_end_where_they_stop_being_finite() -> None:
    curves = np.array([[1.0, 2.0, 3.0], [1.0, NAN, 3.0], [1.0, 1e300, 2.0], [np.inf, 1.0, 1.0], [1.0, 2.0, NAN]])
    loss, status = end_at_divergence(curves, np.array([3, 3, 3, 3, 2]))
    np.testing.assert_array_equal(loss, [[1, 2, 3], [1, NAN, NAN], [1, NAN, NAN], [NAN, NAN, NAN], [1, 2, NAN]])
    assert status.tolist() == [Status.OK, Status.DIVERGED, Status.DIVERGED, Status.DIVERGED, Status.OK]


# --- LCBench ------------------------------------------------------------------------------------------------------------


def test_lcbench_arrays(tmp_path: Path) -> None:
    write_lcbench(tmp_path)
    archive = lcbench.read(tmp_path)
    assert [task.name for task in archive.tasks] == list(archive.bases) == list(ACCURACY)
    assert archive.tasks[0].u is archive.tasks[1].u
    assert archive.fidelity == (50.0,)
    for task in archive.tasks:
        np.testing.assert_array_equal(task.loss[:, 0], -np.array(ACCURACY[task.name]))
    np.testing.assert_allclose(archive.tasks[0].u, [lcbench.SPACE.encode(net) for net in NETS], atol=1e-6)


def test_lcbench_configurations_need_not_be_shared(tmp_path: Path) -> None:
    write_lcbench(tmp_path)
    path = tmp_path / "lcbench" / "lcbench_data.npz"
    with np.load(path) as arrays:
        tables = dict(arrays)
    tables["car"][0, 0] = 32
    np.savez(path, allow_pickle=False, **tables)
    archive = lcbench.read(tmp_path)
    assert task_of(archive, "car").u[0, 0] != task_of(archive, "adult").u[0, 0]
    tables["car"][0, 0] = 8
    np.savez(path, allow_pickle=False, **tables)
    with pytest.raises(DataError, match=r"lcbench_data.npz, car, column 'batch_size': .*16 to 512, got 8"):
        lcbench.read(tmp_path)


@pytest.mark.parametrize("name", lcbench.OFFICIAL)
def test_lcbench_official_curves(name: str, tmp_path: Path) -> None:
    write_lcbench_official(tmp_path, name)
    archive = lcbench.read(tmp_path)
    car, adult = archive.tasks
    assert archive.fidelity == tuple(range(1, 51))
    assert car.u is adult.u
    np.testing.assert_array_equal(car.loss[0, :49], -np.linspace(50, 99, 50, dtype=np.float32)[:49])
    assert car.loss[0, 49] == -98.5  # the published final accuracy
    assert np.isfinite(car.loss).sum(1).tolist() == [50, 3, 1]
    assert car.status.tolist() == [Status.OK, Status.OK, Status.DIVERGED]
    np.testing.assert_array_equal(car.told[0], np.array([-98.5, -52.0, NAN], np.float32))
    np.testing.assert_array_equal(adult.told[0], np.array([-60.0, -61.0, -62.0], np.float32))
    assert car.size == 1728.0
    np.testing.assert_allclose(car.u, [lcbench.SPACE.encode(net) for net in NETS], atol=1e-6)


def test_lcbench_run_without_a_log_is_damage(tmp_path: Path) -> None:
    write_lcbench_official(tmp_path)
    path = tmp_path / "lcbench" / "data_2k_lw.json"
    content = json.loads(path.read_text())
    del content["car"]["1"]["log"]
    path.write_text(json.dumps(content))
    with pytest.raises(StoreError, match="lacks 'log'"):
        lcbench.read(tmp_path)


# --- SVM ----------------------------------------------------------------------------------------------------------------


def test_svm(tmp_path: Path) -> None:
    write_svm(tmp_path)
    archive = svm.read(tmp_path)
    first = archive.tasks[0]
    decoded = [svm.SPACE.decode(row) for row in first.u]
    assert [config["kernel"] for config in decoded] == ["rbf", "rbf", "poly", "linear", "rbf"]
    assert [set(config) - {"kernel", "C"} for config in decoded] == [{"gamma"}, {"gamma"}, {"degree"}, set(), {"gamma"}]
    np.testing.assert_allclose([config["C"] for config in decoded], [1 / 8, 1, 64, 8, 64], rtol=1e-5)
    np.testing.assert_allclose([decoded[i]["gamma"] for i in (0, 1, 4)], [0.05, 1e-4, 1e3], rtol=1e-5)
    assert decoded[2]["degree"] == 3
    np.testing.assert_array_equal(first.u[3, 2:], [0.5, 0.5])  # inactive
    np.testing.assert_array_equal(first.loss[:, 0], -np.array([0.5, 0.6, 0.7, 0.8, 0.9], np.float32))
    np.testing.assert_array_equal(archive.tasks[1].descriptor, [3, 4])
    assert archive.descriptor_names == ("meta_feature_1", "meta_feature_2")
    assert archive.tasks[1].u is first.u
    assert svm.published_split(tmp_path) == (["monk-2"], ["A9A"])


def test_svm_rbf_keeps_what_metabo_keeps(tmp_path: Path) -> None:
    write_svm(tmp_path)
    archive = svm.read_rbf(tmp_path)
    assert (archive.name, archive.spaces["svm"].names) == ("svm143", ("C", "gamma"))
    np.testing.assert_array_equal(archive.tasks[0].loss[:, 0], -np.array([0.5, 0.9], np.float32))
    expected = [archive.spaces["svm"].encode(dict(C=c, gamma=g)) for c, g in ((1 / 8, 0.05), (64.0, 1e3))]
    np.testing.assert_allclose(archive.tasks[0].u, expected, atol=1e-6)


# --- TaskSet ------------------------------------------------------------------------------------------------------------


def test_taskset_counts_diverged_runs_at_the_initial_loss(tmp_path: Path) -> None:
    write_taskset(tmp_path)
    archive = taskset.read(tmp_path)
    assert [task.group for task in archive.tasks] == list(RNNS.values())
    assert len(archive.bases) == 3
    assert archive.fidelity == (1.0, 2.0, 3.0, 4.0)
    task = archive.tasks[0]
    assert task.status.tolist() == [Status.OK, Status.DIVERGED, Status.OK]
    np.testing.assert_array_equal(task.loss[1], np.array([0.8, 1e18, NAN, NAN], np.float32))  # kept as it was
    assert task.cap == np.float32(0.8)  # median over configurations before training
    np.testing.assert_array_equal(task.told[0], np.array([0.4, NAN, 0.8], np.float32))
    np.testing.assert_array_equal(task.scored, np.array([0.4, 0.8, 0.8], np.float32))
    config = taskset.SPACE.decode(task.u[2])
    np.testing.assert_allclose([config["one_minus_beta1"], config["one_minus_beta2"]], [1e-4, 1e-6], rtol=1e-4)


# --- OpenML-100 ---------------------------------------------------------------------------------------------------------


def test_openml100(tmp_path: Path) -> None:
    write_openml100(tmp_path)
    archive = openml100.read(tmp_path)
    # random_forest_11 is constant
    assert [task.name for task in archive.tasks] == ["adaboost_3", "adaboost_11", "random_forest_3"]
    assert archive.bases == ("3", "11")
    assert archive.descriptor_names == ("ClassEntropy", "MaxKurtosis", "NumberOfInstances")
    np.testing.assert_array_equal(task_of(archive, "adaboost_3").descriptor, np.array([0.5, NAN, 3196], np.float32))
    np.testing.assert_array_equal(task_of(archive, "adaboost_11").descriptor, np.array([NAN, NAN, 625], np.float32))
    assert [task.size for task in archive.tasks] == [3196, 625, 3196]
    np.testing.assert_array_equal(task_of(archive, "adaboost_11").loss[:, 0], -np.array([0.75, 0.5, 0.875], np.float32))
    boosted = dict(algorithm="SAMME", learning_rate=0.1376, max_depth=9, n_estimators=161, imputation="median")
    forest = dict(bootstrap="False", criterion="gini", max_features=0.2, min_samples_leaf=1, min_samples_split=2,
                  imputation="mean")  # fmt: skip
    ada, trees = archive.spaces["adaboost"], archive.spaces["random_forest"]
    np.testing.assert_allclose(task_of(archive, "adaboost_11").u[0], ada.encode(boosted), atol=1e-6)
    np.testing.assert_allclose(task_of(archive, "random_forest_3").u[1], trees.encode(forest), atol=1e-6)


@pytest.mark.parametrize(
    ("old", "new", "error", "sentence"),
    [
        ("SAMME,0.1376,9", "SAMME,0.1376,9.5", DataError, "column 'max_depth': .*9.5"),
        ("0.75,11", "0.75,?", StoreError, "a number in every row of task_id"),
        ("predictive_accuracy", "accuracy", StoreError, "lacks 'predictive_accuracy'"),
        ("SAMME,0.1376", "BOOST,0.1376", StoreError, "BOOST"),
    ],
)
def test_openml100_names_what_is_wrong(old: str, new: str, error: type, sentence: str, tmp_path: Path) -> None:
    write_openml100(tmp_path)
    (tmp_path / "openml100" / "adaboost.arff").write_text(ADABOOST.replace(old, new))
    with pytest.raises(error, match=f"adaboost.arff.*{sentence}"):
        openml100.read(tmp_path)


# --- HPO-B --------------------------------------------------------------------------------------------------------------


def test_hpob_arrays(tmp_path: Path) -> None:
    write_hpob(tmp_path)
    archive = hpob.read(tmp_path)
    assert [(task.name, task.space, task.base) for task in archive.tasks] == [
        ("4796_23", "4796", "23"), ("4796_9903", "4796", "9903"), ("5970_23", "5970", "23"),
    ]  # fmt: skip
    assert archive.spaces["5970"] == Space.of({"alpha": Float(0.0, 1.0), "lambda": Float(0.0, 1.0)})
    np.testing.assert_array_equal(archive.tasks[0].u, POOL[:, :-1])
    np.testing.assert_array_equal(archive.tasks[0].loss, -POOL[:, -1:])
    assert hpob.test_tasks(tmp_path) == {"4796_23", "4796_3549", "5860_14965"}


def test_hpob_rounding_is_clipped_and_unscaled_columns_are_refused(tmp_path: Path) -> None:
    write_hpob(tmp_path)
    path = tmp_path / "hpob" / "hpob_data.npz"
    for value, accepted in ((1.00001, True), (1.5, False), (NAN, False)):
        pool = POOL.copy()
        pool[0, 1] = value
        np.savez(path, allow_pickle=False, **{"4796_23": pool})
        if accepted:
            assert hpob.read(tmp_path).tasks[0].u[0, 1] == 1.0
        else:
            with pytest.raises(DataError, match=r"hpob_data.npz, 4796_23: expected coordinates scaled to \[0, 1\]"):
                hpob.read(tmp_path)


def test_hpob_official_files_add_sources_of_the_same_spaces(tmp_path: Path) -> None:
    write_hpob_official(tmp_path)
    archive = hpob.read(tmp_path)
    # 4796_7 is constant, and no task of space 5970 is tested
    assert [task.name for task in archive.tasks] == ["4796_23", "4796_9903", "4796_11"]
    np.testing.assert_array_equal(archive.tasks[2].u, POOL[::-1, :-1])
    np.testing.assert_array_equal(archive.tasks[2].loss, -POOL[::-1, -1:])
    for name in ("train", "validation"):
        (tmp_path / "hpob" / f"meta-{name}-dataset.json").unlink()
    assert [task.name for task in hpob.read(tmp_path).tasks] == ["4796_23"]


def test_hpob_official_test_task_in_training_is_refused(tmp_path: Path) -> None:
    write_hpob_official(tmp_path)
    folder = tmp_path / "hpob"
    (folder / "meta-train-dataset.json").write_bytes((folder / "meta-test-dataset.json").read_bytes())
    with pytest.raises(DataError, match="two tasks are called '4796_23'"):
        hpob.read(tmp_path)


def test_hpob_published_rows_are_those_of_the_discrete_track(tmp_path: Path) -> None:
    write_hpob(tmp_path)
    published = hpob.read_published(tmp_path)
    assert set(published) == {"FSBO2", "Random"}
    curves = published["FSBO2"]["4796_23"]
    assert (curves.shape, curves.dtype) == ((5, 101), np.float64)
    np.testing.assert_allclose(curves[:, 0], [0.0, 0.1, 0.2, 0.3, 0.4])  # in the order of the seeds
    np.testing.assert_array_equal(curves[:, -1], 1.0)


@pytest.mark.parametrize("content", ["{", "[1]", '{"4796": {"23": {"test0": [1]}}}', '{"4796": {"23": {}}}'])
def test_hpob_published_row_that_is_damaged_is_a_sentence(content: str, tmp_path: Path) -> None:
    write_hpob(tmp_path)
    (tmp_path / "hpob" / "results" / "Random.json").write_text(content)
    with pytest.raises(StoreError, match=r"Random.json.* damaged or another file of that name: get HPO-B"):
        hpob.read_published(tmp_path)
