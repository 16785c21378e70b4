"""CSV files as tasks: what is read from a good one, and the sentence about a bad one."""

from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest

from metahpo_jax.errors import DataError, MetaHPOError, StoreError
from metahpo_jax.tasks import DESCRIPTORS, shape_bucket
from metahpo_jax.tasks.csv_files import MAX_BYTES, CsvSource, csv_family, parse

ROWS = 300


def cells(rows=ROWS, classes=2, seed=0):
    """Columns by name: two informative numbers, a colour, and a label."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % classes
    return {
        "a": [f"{x:.4f}" for x in rng.normal(size=rows) + label],
        "b": [f"{x:.4f}" for x in rng.normal(size=rows)],
        "colour": rng.choice(["red", "green", "blue"], rows).tolist(),
        "label": [f"class {k}" for k in label],
    }


def text(columns):
    return "\n".join([",".join(columns), *(",".join(row) for row in zip(*columns.values(), strict=True))]) + "\n"


def table(content, target=None, **options):
    return parse(CsvSource(Path("mine.csv"), target, **options), content.encode())


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(("beta", "alpha")):
        (tmp_path / f"{name}.csv").write_text(text(cells(classes=2 + i, seed=i)))
    (tmp_path / "notes.txt").write_text("not a table")
    (tmp_path / ".hidden.csv").write_text("neither")
    return tmp_path


def test_a_folder_is_a_family_of_tasks(folder):
    family = csv_family(folder)
    assert family.names == ("alpha", "beta")
    assert family.descriptors == DESCRIPTORS
    assert [family.base(name) for name in family.names] == ["alpha", "beta"]
    data = family.load("alpha")
    assert (data.n_classes, data.base, data.bundled, data.simulated) == (3, "alpha", False, False)
    assert (len(data.y_train), len(data.y_valid), len(data.y_test)) == (180, 60, 60)
    assert data.x_train.shape[1] == 5  # two numbers and three colours
    assert data.descriptor.shape == (len(DESCRIPTORS),)
    assert family.load("alpha") is data
    shape = shape_bucket(data)
    assert family.shape("alpha") == shape
    task = family.task("alpha")
    assert task.train.x.shape == (shape.rows, shape.features)
    assert int(task.train.count) == 180


def test_a_family_goes_to_other_processes(folder):
    family = csv_family(folder)
    before = bytes(ForkingPickler.dumps(family))
    family.load("alpha")
    assert bytes(ForkingPickler.dumps(family)) == before, "what was loaded does not travel"


def test_the_source_of_a_task_tells_its_content(folder):
    before = csv_family(folder).load("alpha").source
    assert before.startswith("alpha.csv sha256:")
    other = folder / "elsewhere"
    other.mkdir()
    (other / "alpha.csv").write_text(text(cells(seed=7)))
    assert csv_family(other).load("alpha").source != before


def test_files_can_be_named_one_by_one(folder):
    assert csv_family([folder / "beta.csv"]).names == ("beta",)
    assert csv_family(folder / "beta.csv").names == ("beta",)
    assert csv_family([folder / "beta.csv", str(folder / "alpha.csv")]).names == ("beta", "alpha")


def test_kinds_of_columns_are_found_out():
    got = table("n,c,when,flag,code,y\n1,x,2020-01-01,true,007,p\n-2e3,y,2020-01-02,no,12_3,q\n.5,z,x,no,7,p\n")
    assert {c.name: c.categorical for c in got.columns} == {
        "n": False,
        "c": True,
        "when": True,
        "flag": True,
        "code": True,  # 12_3 is no number
    }
    np.testing.assert_array_equal(got.columns[0].values, [1.0, -2000.0, 0.5])
    assert got.target.tolist() == ["p", "q", "p"]


@pytest.mark.parametrize("missing", ["", "NA", "?", "NaN", " na ", "null"])
def test_missing_cells_stay_missing(missing):
    got = table(f"n,c,y\n1,x,p\n{missing},{missing},{missing}\n3,z,q\n")
    np.testing.assert_array_equal(got.columns[0].values, [1.0, np.nan, 3.0])
    assert got.columns[1].values.tolist() == ["x", "", "z"]
    assert got.target.tolist() == ["p", "", "q"]


def test_none_is_a_category():
    assert table("c,y\nNone,p\nsome,q\n").columns[0].values.tolist() == ["None", "some"]


def test_numeric_labels_are_one_class_however_they_are_written():
    assert table("a,y\n1,1\n2,1.0\n3,2\n4,01\n5,?\n").target.tolist() == ["1", "1", "2", "1", ""]
    assert table("a,y\n1,0.5\n2,1.50\n").target.tolist() == ["0.5", "1.5"]


def test_the_target_may_stand_anywhere_and_columns_may_be_left_out():
    content = "y,id,zip,a\np,1,10115,1.5\nq,2,80331,2.5\n"
    got = table(content, "y", drop=("id", "elsewhere"), categorical=("zip",))
    assert [(c.name, c.categorical) for c in got.columns] == [("zip", True), ("a", False)]
    assert got.target.tolist() == ["p", "q"]


def test_quotes_byte_order_mark_and_line_ends_of_other_programs():
    got = table('\ufeff"a, b",y\r\n"1","p, ""q"""\r\n2,"two\nlines"\r\n')
    assert got.columns[0].name == "a, b"
    assert got.target.tolist() == ['p, "q"', "two\nlines"]


GOOD = text(cells())
HEADER = "a,b,colour,label\n"
TYPO = text({**cells(), "b": [*cells()["b"][:41], "1,5".replace(",", ";"), *cells()["b"][42:]]})


@pytest.mark.parametrize(
    ("content", "target", "words"),
    [
        (b"", None, ["empty file"]),
        (b" \n\n", None, ["empty file"]),
        (b"\n,\n", None, ["column 1 has no name"]),
        (HEADER.encode(), None, ["below the header, got none"]),
        ((HEADER + "1,2,red,x\n1,2,red\n").encode(), None, ["row 2", "expected 4 cells, got 3"]),
        ((HEADER + "1,2,red,x,5\n").encode(), None, ["row 1", "expected 4 cells, got 5"]),
        ((HEADER + '1,2,"red,x\n1,2,red,y\n').encode(), None, ["expected 4 cells", "close every quote"]),
        (b"a,b,a,y\n1,2,3,x\n", None, ["columns 1 and 3", "'a'"]),
        (b",a,y\n0,1,x\n1,2,y\n", None, ["column 1 has no name", "counts rows"]),
        (b"5.1,3.5,setosa\n4.9,3.0,setosa\n", None, ["number 5.1", "no header"]),
        (b"a;b;y\n1;2;x\n", None, ["';'", "commas"]),
        (b"y\nx\nz\n", None, ["one column"]),
        (GOOD.encode(), "lable", ["'lable'", "did you mean 'label'"]),
        (b"a,y\n" + b"1,x\n" * ROWS, None, ["'y'", "two classes", "'x' only"]),
        (b"a,y\n" + b"1,\n2,?\n" * ROWS, None, ["'y'", "empty cells only"]),
        (GOOD.encode(), "a", ["'a'", "different numbers", "regression"]),
        (GOOD.encode("utf-16"), None, ["line 1", "UTF-8", "byte 0"]),
        (GOOD.replace("class 1", "clässe", 1).encode("latin-1"), None, ["line 3", "UTF-8"]),
        (GOOD.encode().replace(b"red", b"r\0d", 1), None, ["NUL byte"]),
        (TYPO.encode(), None, ["row 42", "'b'", "299 other cells", "'1;5'"]),
        (GOOD.replace("red", "r" * 300, 1).encode(), None, ["'colour'", "300", "`drop`"]),
        (text(cells(rows=40)).encode(), None, ["40 rows", "150"]),
        (b"a,y\n" + b"1,x\n1,y\n" * ROWS, None, ["every feature column is constant"]),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_every_bad_file_gets_a_sentence_that_names_it(tmp_path, content, target, words):
    path = tmp_path / "mine.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        csv_family(tmp_path, target).load("mine")
    message = str(caught.value)
    assert message.startswith(str(path)) and message.endswith((".", "?")) and "\n" not in message
    for word in words:
        assert word in message


def test_a_target_cannot_be_dropped_nor_stand_alone():
    with pytest.raises(DataError, match="cannot be dropped"):
        table("a,y\n1,x\n2,z\n", drop=("y",))
    with pytest.raises(DataError, match="columns beside the target"):
        table("a,y\n1,x\n2,z\n", drop=("a",))


@pytest.mark.parametrize(
    ("files", "error", "words"),
    [
        ([], DataError, "empty list"),
        ("no_such_folder", DataError, "ends in .csv"),
        ("absent.csv", StoreError, "got none"),
        (["table.xlsx"], DataError, "ends in .csv"),
        (["folder.csv"], StoreError, "a folder"),
        (["a.csv", "folder.csv/a.csv"], DataError, "called 'a' already"),
        (["a..b.csv"], DataError, "two dots"),
        ("folder.csv/empty", DataError, "in this folder, got none"),
    ],
)
def test_bad_lists_of_files(tmp_path, monkeypatch, files, error, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv" / "empty").mkdir(parents=True)
    for name in ("a.csv", "a..b.csv", "folder.csv/a.csv", "table.xlsx"):
        (tmp_path / name).write_text(GOOD)
    with pytest.raises(error, match=words):
        csv_family(files)


def test_a_name_that_is_unknown_is_told_of_its_neighbours(folder):
    for ask in ("info", "base", "load", "task"):
        with pytest.raises(DataError, match="did you mean alpha"):
            getattr(csv_family(folder), ask)("alfa")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    with open(tmp_path / "huge.csv", "wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(DataError, match=r"at most 64 MiB.*some thousand rows"):
        csv_family(tmp_path).load("huge")


def test_a_file_that_went_away_is_a_sentence(folder):
    family = csv_family(folder)
    (folder / "alpha.csv").unlink()
    with pytest.raises(StoreError, match=r"alpha\.csv: cannot be read"):
        family.load("alpha")
    assert issubclass(StoreError, MetaHPOError)
