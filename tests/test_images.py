"""Image tasks: readers, recipes, corruptions, and what must never be on both sides of a split."""

import gzip
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from metahpo_jax.errors import DataError, SplitError
from metahpo_jax.tasks import TaskShape, check_disjoint
from metahpo_jax.tasks.images import BASES, IMAGE_DESCRIPTORS, ImageFamily, describe_images, draw, image_tasks
from metahpo_jax.tasks.images.bases import read_base, read_resized
from metahpo_jax.tasks.images.corrupt import add_noise, blur, fade, resize, rotate
from metahpo_jax.tasks.images.family import _load
from metahpo_jax.tasks.images.files import luminance, read_cifar10, read_idx, read_npz
from metahpo_jax.tasks.images.glyphs import FONTS
from metahpo_jax.tasks.images.pictures import areas, cut
from metahpo_jax.tasks.images.pixels import TEST, TRAIN, VALID, distinct

BASE = {base.name: base for base in BASES}
ALWAYS = ("digits", "photographs", "glyphs")  # of the dependencies that are always installed


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def blobs(n_classes: int, per_class: int, side: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy images whose class is the position of a bright square."""
    random = np.random.default_rng(seed)
    y = np.tile(np.arange(n_classes), per_class)
    x = random.integers(0, 120, (len(y), side, side)).astype(np.uint8)
    step = side // 4
    for row, label in enumerate(y):
        top, left = step * (label // 4), step * (label % 4)
        x[row, top : top + step, left : left + step] += 120
    return x, y


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small files in place of Fashion-MNIST and CIFAR-10, and an NPZ file with every image twice."""
    data = tmp_path_factory.mktemp("data")
    (data / "fashion-mnist").mkdir()
    (data / "cifar-10-batches-bin").mkdir()
    for seed, part in enumerate(("train", "t10k")):
        x, y = blobs(10, 60, 28, seed)
        (data / "fashion-mnist" / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(x)))
        (data / "fashion-mnist" / f"{part}-labels-idx1-ubyte").write_bytes(idx(y.astype(np.uint8)))
    for seed, file in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        x, y = blobs(10, 20, 32, 10 + seed)
        records = np.concatenate(
            [y[:, None].astype(np.uint8), np.repeat(x.reshape(len(x), -1), 3, axis=0).reshape(len(x), -1)], 1
        )
        (data / "cifar-10-batches-bin" / f"{file}.bin").write_bytes(records.tobytes())
    x, y = blobs(3, 60, 12, 99)
    np.savez(data / "twins.npz", x=np.concatenate([x, x]), y=np.concatenate([y, y]) + 5)
    return data


# Files


@pytest.mark.parametrize("packed", [False, True])
def test_idx_round_trip(tmp_path: Path, packed: bool) -> None:
    array = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / ("a.gz" if packed else "a")
    path.write_bytes(gzip.compress(idx(array)) if packed else idx(array))
    np.testing.assert_array_equal(read_idx(path), array)


GOOD_IDX = idx(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("short", GOOD_IDX[:-1], "holds 23"),
        ("long", GOOD_IDX + b"x", "holds 25"),
        ("empty", b"", "no IDX"),
        ("header", GOOD_IDX[:9], "no IDX"),
        ("floats", b"\0\0\x0d\x01\0\0\0\1abcd", "no IDX"),
        ("vast", b"\0\0\x08\x03" + b"\xff" * 12, "damaged"),
        ("not.gz", GOOD_IDX, "cannot be read"),
        ("cut.gz", gzip.compress(GOOD_IDX, mtime=0)[:-6], "cannot be read"),
        ("absent", None, "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",
)
def test_a_bad_idx_file_is_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{file}.*{message}"):
        read_idx(tmp_path / file)


def test_a_packed_file_is_never_unpacked_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metahpo_jax.tasks.images.files.MAX_BYTES", 1000)
    (tmp_path / "bomb.gz").write_bytes(gzip.compress(bytes(10_000)))
    with pytest.raises(DataError, match=r"bomb\.gz unpacks to more than 1000"):
        read_idx(tmp_path / "bomb.gz")
    np.savez_compressed(tmp_path / "bomb.npz", x=np.zeros((10, 40, 40), np.uint8), y=np.zeros(10, int))
    with pytest.raises(DataError, match=r"bomb\.npz unpacks to more than 1000"):
        read_npz(tmp_path / "bomb.npz")


def test_cifar10_becomes_luminance(tmp_path: Path) -> None:
    red = np.concatenate([[3], np.full(1024, 200), np.zeros(2048)]).astype(np.uint8)
    grey = np.concatenate([[9], np.full(3072, 77)]).astype(np.uint8)
    (tmp_path / "a.bin").write_bytes(red.tobytes() + grey.tobytes())
    found = read_cifar10(tmp_path / "a.bin")
    assert found.images.shape == (2, 32, 32)
    assert found.labels.tolist() == [3, 9]
    assert np.unique(found.images[0]).tolist() == [60]  # .299 x 200, rounded
    assert np.unique(found.images[1]).tolist() == [77]
    assert luminance(np.full((1, 3), 255, np.uint8)).tolist() == [255]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "0 bytes"), (bytes(3072), "no multiple"), (b"\x0a" + bytes(3072), "record 0 has label 10")],
)
def test_a_bad_cifar10_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "batch.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"batch\.bin.*{message}"):
        read_cifar10(tmp_path / "batch.bin")


X, Y = np.zeros((4, 8, 8), np.uint8), np.arange(4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X}, "holds x of"),
        ({}, "holds none"),
        ({"x": X, "y": Y[:3]}, "labels"),
        ({"x": X, "y": Y.astype(float)}, "labels"),
        ({"x": X[0], "y": Y}, "shape"),
        ({"x": np.zeros((4, 8, 8, 2), np.uint8), "y": Y}, "shape"),
        ({"x": np.full((4, 8, 8), np.nan), "y": Y}, "between 0 and 1"),
        ({"x": X.astype(int), "y": Y}, "expected uint8"),
        ({"x": np.array([[[None]]]), "y": Y}, "without unpickling"),
    ],
)
def test_a_bad_npz_file_is_named(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)  # type: ignore[arg-type] # the stub takes the arrays for allow_pickle
    with pytest.raises(DataError, match=rf"mine\.npz.*{message}"):
        read_npz(tmp_path / "mine.npz")


@pytest.mark.parametrize("damage", [lambda b: b[:100], lambda b: b"PK" + b[::-1], lambda b: b""])
def test_a_damaged_npz_file_is_named(tmp_path: Path, damage) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"mine\.npz cannot be read"):
        read_npz(path)


def test_npz_forms(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.full((4, 8, 8, 3), 0.5), y=Y[:, None])
    only, none = read_npz(tmp_path / "a.npz")
    assert none is None and only.images.dtype == np.uint8 and np.unique(only.images).tolist() == [128]
    np.savez(tmp_path / "b.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2])
    train, test = read_npz(tmp_path / "b.npz")
    assert test is not None and (len(train.images), len(test.images)) == (4, 2)


# Resizing and corruptions


def test_resizing_averages_over_areas() -> None:
    picture = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) * 10
    np.testing.assert_array_equal(resize(picture, 2)[0], [[25, 45], [105, 125]])
    # 3 to 2: a target pixel holds one source pixel, halves of two and a quarter of a fourth
    picture = np.array([[[0, 90, 0], [0, 0, 0], [0, 0, 180]]], np.uint8)
    np.testing.assert_array_equal(resize(picture, 2)[0], [[20, 20], [0, 80]])
    np.testing.assert_array_equal(resize(picture, 3), picture)
    assert resize(np.array([[[1, 1], [1, 0]]], np.uint8), 1).tolist() == [[[1]]]  # rounded, not cut off
    wide = np.concatenate([np.full((1, 8, 4), 9), np.full((1, 8, 8), 50), np.full((1, 8, 4), 9)], 2).astype(np.uint8)
    assert np.unique(resize(wide, 8)).tolist() == [50]  # the central square


@pytest.mark.parametrize(("corrupt", "strength"), [(rotate, 40.0), (blur, 0.1), (fade, 0.4), (add_noise, 0.2)])
def test_corruptions_are_seeded_and_keep_the_shape(corrupt, strength: float) -> None:
    x, _ = blobs(3, 4, 12, 0)
    one, same, other = (corrupt(x, strength, np.random.RandomState(seed)) for seed in (1, 1, 2))
    assert one.shape == x.shape and one.dtype == np.uint8
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, x)
    assert np.array_equal(one, other) == (corrupt is blur)


@pytest.mark.parametrize(("corrupt", "strength"), [(rotate, 40.0), (blur, 0.1), (fade, 0.0), (add_noise, 0.0)])
def test_corruptions_leave_a_flat_image_alone(corrupt, strength: float) -> None:
    flat = np.full((2, 8, 8), 37, np.uint8)
    np.testing.assert_array_equal(corrupt(flat, strength, np.random.RandomState(0)), flat)


def test_a_quarter_turn_is_a_transpose() -> None:
    class Fixed(np.random.RandomState):
        def uniform(self, low=0.0, high=1.0, size=None):
            return np.full(size or 1, high)

    x, _ = blobs(2, 1, 8, 3)
    np.testing.assert_array_equal(rotate(x, 90.0, Fixed(0)), np.rot90(x, axes=(2, 1)))


# Recipes


def test_the_six_bases_make_a_hundred_tasks_under_their_own_names() -> None:
    hundred = [base for base in BASES if base.name != "cifar10"]
    assert sum(base.tasks for base in hundred) == 100
    assert len(hundred) >= 5
    family = image_tasks()
    present = [base.tasks for base in BASES if base.find(None) is not None]
    assert len(set(family.names)) == len(family.names) == sum(present)
    assert {family.base(name) for name in family.names} >= set(ALWAYS)


PINNED_TEXT = "classes 9 5 3 6 4 7 1 8 0; at most 265 rows; 8 x 8 pixels; rotation 30, contrast 0.315; imbalance 0.344"
PINNED_HASH = "27f283abceedce5193de52d2710b6e680da2d9efb46d0e3e2bd97029dfbce55c"


def test_recipes_are_pinned() -> None:
    """The draw must not change: recorded meta-datasets depend on it."""
    recipe = draw("fashion", 3, 10, (8, 12, 16))
    assert recipe.name == "fashion_03"
    assert recipe.text == PINNED_TEXT
    assert draw("glyphs", 0, 37, (8, 12, 16)).hash == PINNED_HASH


def test_recipes_keep_to_their_ranges() -> None:
    drawn = [draw("any", i, 12, (8, 12, 16)) for i in range(300)]
    assert {recipe.side for recipe in drawn} == {8, 12, 16}
    assert {len(recipe.classes) for recipe in drawn} == set(range(2, 11))
    assert all(len(set(r.classes)) == len(r.classes) and max(r.classes) < 12 for r in drawn)
    assert all(max(100, 20 * len(r.classes)) <= r.rows <= 2000 for r in drawn)
    assert {len(recipe.corruptions) for recipe in drawn} == {0, 1, 2}
    assert {c.kind for recipe in drawn for c in recipe.corruptions} == {"rotation", "blur", "contrast", "noise"}
    assert 0.2 < np.mean([recipe.imbalance < 1 for recipe in drawn]) < 0.4


def test_other_bases_change_no_task(folder: Path) -> None:
    alone, more = image_tasks(), image_tasks(folder)
    assert set(more.names) >= {*alone.names, "twins_00", "cifar10_00", "fashion_00"}
    assert all(alone.info(name) == more.info(name) for name in alone.names)
    assert image_tasks(folder).load("twins_00") is more.load("twins_00")  # one cache for all families


# Tasks


def realise_again(family: ImageFamily, name: str) -> list[np.ndarray]:
    base = BASE[family.base(name)]
    data = _load.__wrapped__(family.info(name), base, base.locate(None))
    return [data.x_train, data.y_train, data.x_valid, data.x_test, data.descriptor]


@pytest.mark.parametrize("name", ["digits_01", "photographs_03", "glyphs_10"])
def test_a_task_is_the_same_to_the_bit_each_time(name: str) -> None:
    family = image_tasks()
    data = family.load(name)
    first = [data.x_train, data.y_train, data.x_valid, data.x_test, data.descriptor]
    for one, two in zip(first, realise_again(family, name), strict=True):
        assert one.tobytes() == two.tobytes()
    assert not data.x_train.flags.writeable


@pytest.mark.parametrize("name", ["digits_00", "photographs_00", "glyphs_03", "twins_00", "cifar10_00", "fashion_00"])
def test_tasks(folder: Path, name: str) -> None:
    family = image_tasks(folder)
    data, recipe = family.load(name), family.info(name)
    assert (data.name, data.base, recipe.base) == (name, name[:-3], name[:-3])
    assert recipe.text in data.source
    for x, y in ((data.x_train, data.y_train), (data.x_valid, data.y_valid), (data.x_test, data.y_test)):
        assert x.dtype == np.float32 and x.shape == (len(y), recipe.side**2)
        assert set(y) == set(range(data.n_classes))  # so that the prior entropy is finite
    assert data.n_classes == len(recipe.classes)
    assert len(data.y_train) <= recipe.rows and len(data.y_valid) <= 512 and len(data.y_test) <= 512
    assert np.isfinite(data.descriptor).all() and data.descriptor.shape == (len(family.descriptors),)
    values = dict(zip(family.descriptors, data.descriptor, strict=True))
    assert values["side"] == recipe.side and values["n_classes"] == data.n_classes
    assert values["landmark_1nn"] > np.bincount(data.y_train).max() / len(data.y_train) + 0.1
    task = family.task(name)
    assert family.shape(name) == TaskShape(2048, 512, recipe.side**2, 10)
    assert task.train.x.shape == (2048, recipe.side**2) and task.test.x.shape == (512, recipe.side**2)
    assert int(task.class_mask.sum()) == data.n_classes and task.class_mask.shape == (10,)
    assert bool(task.descriptor_mask.all())


def test_three_shapes_serve_all_tasks(folder: Path) -> None:
    family = image_tasks(folder)
    assert {family.shape(name).features for name in family.names} == {64, 144, 256}
    assert len({family.shape(name) for name in family.names}) == 3


def test_standardisation_uses_the_training_rows_only() -> None:
    family = image_tasks()
    name = next(n for n in family.names if n.startswith("photographs") and not family.info(n).corruptions)
    data = family.load(name)
    assert abs(float(data.x_train.mean(dtype=np.float64))) < 1e-6
    assert float(data.x_train.std(dtype=np.float64)) == pytest.approx(1, abs=1e-6)
    # each grey level, in every split, is the same affine function of 0..255, read off training's extremes
    step = np.diff(np.unique(data.x_train)).min()
    for x in (data.x_valid, data.x_test):
        level = (x.astype(np.float64) - data.x_train.min()) / step
        np.testing.assert_allclose(level, np.rint(level), atol=1e-2)
        assert abs(x.mean()) > 1e-4  # not standardised by its own


def test_imbalance_is_what_the_recipe_says() -> None:
    family = image_tasks()
    name = next(n for n in family.names if n.startswith("glyphs") and family.info(n).imbalance < 1)
    counts = np.bincount(family.load(name).y_train)
    assert np.all(np.diff(counts) <= 0)
    assert counts[-1] / counts[0] == pytest.approx(family.info(name).imbalance, abs=0.03)


# Leaks


def test_no_pixel_of_a_picture_is_in_two_splits() -> None:
    tiles = [np.arange(200 * 150).reshape(200, 150), 30_000 + np.arange(90 * 120).reshape(90, 120)]
    patches = cut("any", tiles, 16)
    seen = [set(patches.images[patches.split == split].ravel().tolist()) for split in (TRAIN, VALID, TEST)]
    assert all(seen)
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert set(patches.labels) == {0, 1}
    for split in (TRAIN, VALID, TEST):
        assert set(patches.labels[patches.split == split]) == {0, 1}
    assert len({split for *_, split in areas(200, 150, 16, np.random.RandomState(0))}) == 3


def test_no_font_is_in_two_splits() -> None:
    fonts = [font for split in (TRAIN, VALID, TEST) for font in FONTS[split]]
    assert len(set(fonts)) == len(fonts)


@pytest.mark.parametrize("name", ALWAYS)
def test_no_equal_images_remain_of_a_base(name: str) -> None:
    base = BASE[name]
    path = base.locate(None)
    pixels = read_base(base, path)
    assert set(pixels.split) == {TRAIN, VALID, TEST}
    assert set(pixels.labels) == set(range(base.n_classes))
    for side in base.sides[:1]:
        small, first = read_resized(base, path, side)
        kept = [image.tobytes() for image in small[first]]
        assert len(set(kept)) == len(kept)


def test_copies_never_straddle_the_splits_of_a_task(folder: Path) -> None:
    family = image_tasks(folder)
    name = next(n for n in family.names if n.startswith("twins") and not family.info(n).corruptions)
    data = family.load(name)
    rows = [{row.tobytes() for row in x} for x in (data.x_train, data.x_valid, data.x_test)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == len(data.y_train) + len(data.y_valid) + len(data.y_test)
    x = np.array([[[1, 2]], [[3, 4]], [[1, 2]]], np.uint8)
    assert distinct(x).tolist() == [True, True, False]


def test_splits_by_base() -> None:
    family = image_tasks()
    check_disjoint(["digits_00", "digits_01"], ["glyphs_00", "fashion_00"], family)  # also for a base that is absent
    with pytest.raises(SplitError, match="'digits'"):
        check_disjoint(["digits_00"], ["digits_01"], family)


# What is absent or wrong


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("fashion", "dataset-fashion-mnist"),
        ("cifar10", "cifar-10-batches-bin/"),
        ("mnist5k", r"metahpo-jax\[datasets\]"),
    ],
)
def test_an_absent_base_says_what_to_do(monkeypatch: pytest.MonkeyPatch, name: str, remedy: str) -> None:
    absent = tuple(replace(base, find=lambda data: None) if base.name == name else base for base in BASES)
    monkeypatch.setattr("metahpo_jax.tasks.images.bases.BASES", absent)
    family = image_tasks()
    assert not any(task.startswith(name) for task in family.names)
    assert set(ALWAYS) <= {family.base(task) for task in family.names}
    with pytest.raises(DataError, match=rf"base '{name}'.*{remedy}"):
        family.load(f"{name}_00")
    assert any(re.search(rf"base '{name}'.*{remedy}", sentence) for sentence in family.absences)


def test_wrong_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean digits_01"):
        image_tasks().load("digits_1")
    with pytest.raises(DataError, match="is no folder"):
        image_tasks(tmp_path / "none")
    np.savez(tmp_path / "few.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"few\.npz: 0 classes have 30 images"):
        image_tasks(tmp_path)
    (tmp_path / "few.npz").rename(tmp_path / "digits.npz")
    with pytest.raises(DataError, match=r"digits\.npz: a base takes its file's name"):
        image_tasks(tmp_path)


# Descriptors


def test_descriptors_of_known_images() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (400, 8, 8)).astype(np.uint8)
    labels = np.repeat(np.arange(2, dtype=np.int32), [300, 100])
    values = dict(zip(IMAGE_DESCRIPTORS, describe_images(noise, labels, 2), strict=True))
    assert values["log_rows"] == pytest.approx(np.log(400))
    assert values["imbalance"] == pytest.approx(1 / 3)
    assert values["intensity_mean"] == pytest.approx(0.5, abs=0.01)
    assert values["intensity_std"] == pytest.approx(1 / np.sqrt(12), abs=0.01)
    assert values["intensity_skew"] == pytest.approx(0, abs=0.05)
    assert values["edge_energy"] == pytest.approx(1, abs=0.03)  # white noise
    # of the 63 frequencies other than the mean, 5 x 5 - 1 lie at or below half of Nyquist's
    assert values["high_frequency"] == pytest.approx(39 / 63, abs=0.02)
    assert values["class_separation"] < 0.02
    ramp = np.tile(np.arange(0, 256, 32, dtype=np.uint8), (400, 8, 1))
    smooth = (ramp + random.integers(0, 3, (400, 1, 1)) + 20 * labels[:, None, None]).astype(np.uint8)
    flat = dict(zip(IMAGE_DESCRIPTORS, describe_images(smooth, labels, 2), strict=True))
    assert flat["edge_energy"] < values["edge_energy"]
    assert flat["high_frequency"] < values["high_frequency"]
    assert flat["class_separation"] > 10
    assert flat["pca_first"] > 0.99 and flat["pca_95"] == pytest.approx(1 / 64)
    assert flat["landmark_1nn"] == 1
