"""288 support vector machines on one shared grid, on 50 data sets (Schilling, Wistuba and Schmidt-Thieme, ECML 2016).

The split into 35 training and 15 test data sets is that of MetaBO (Volpp et al., ICLR 2020).
"""

from pathlib import Path

import numpy as np

from metahpo_jax.base import Status
from metahpo_jax.metadata.archive import Archive, ArchivedTask
from metahpo_jax.metadata.public.arrays import encode
from metahpo_jax.metadata.public.folder import damaged, read_json, read_npz, require
from metahpo_jax.spaces import Choice, Float, Int, Space

ARRAYS, SPLIT = "svm50.npz", "split_iclr2020.json"
COLUMNS = ("kernel_rbf", "kernel_poly", "kernel_linear", "log_C_scaled", "log_gamma_scaled", "degree_scaled")
KERNELS = ("rbf", "poly", "linear")
# The authors scaled each column by its largest absolute value: log2 C by 6, log10 gamma by 4, log10 degree by 1.
COST = Float(2.0**-5, 2.0**6, log=True)
WIDTH = (1e-4, 1e3)
DEGREE = (2, 10)
SPACE = Space(
    kernel=Choice(*KERNELS),
    C=COST,
    gamma=Float(*WIDTH, log=True, when={"kernel": "rbf"}),
    degree=Int(*DEGREE, log=True, when={"kernel": "poly"}),
)
RBF_SPACE = Space(C=COST, gamma=Float(*WIDTH, log=True))


def read(data: Path | None) -> Archive:
    """All 288 configurations of the 50 tasks; loss is minus the accuracy, descriptors are the 22 published meta-features.

    Raises:
        StoreError: The files are missing or damaged.
        DataError: They hold a configuration outside the published grid.
    """
    path, content = _content(data)
    return _archive("svm", SPACE, path, content, np.ones(len(content["configs"]), bool))


def read_rbf(data: Path | None) -> Archive:
    """The 143 RBF configurations that MetaBO's parser keeps, as `svm143`: scaled C and gamma are both not zero.

    Raises:
        StoreError: The files are missing or damaged.
        DataError: They hold a configuration outside the published grid.
    """
    path, content = _content(data)
    rbf, _, _, cost, width, _ = content["configs"].T
    return _archive("svm143", RBF_SPACE, path, content, (rbf == 1) & (cost != 0) & (width != 0))


def published_split(data: Path | None) -> tuple[list[str], list[str]]:
    """Names of the 35 training and of the 15 test tasks.

    Raises:
        StoreError: The file is missing or damaged.
    """
    path = require(data, "svm", (SPLIT,)) / SPLIT
    split = read_json(path)
    try:
        return list(split["train"]), list(split["test"])
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error


def _content(data: Path | None) -> tuple[Path, dict[str, np.ndarray]]:
    path = require(data, "svm", (ARRAYS,)) / ARRAYS
    content = read_npz(path)
    for name in ("columns", "configs", "tasks", "accuracy", "meta_features"):
        if name not in content:
            raise damaged(path, KeyError(name))
    if tuple(content["columns"].tolist()) != COLUMNS or content["configs"].shape[1:] != (len(COLUMNS),):
        raise damaged(path, f"expected columns {', '.join(COLUMNS)}, got {', '.join(content['columns'].tolist())}")
    shape = (len(content["tasks"]), len(content["configs"]))
    if content["accuracy"].shape != shape or len(content["meta_features"]) != shape[0]:
        raise damaged(path, f"expected accuracy of shape {shape}, got {content['accuracy'].shape}")
    return path, content


def _archive(name: str, space: Space, path: Path, content: dict[str, np.ndarray], rows: np.ndarray) -> Archive:
    """The archive of the configurations `rows [288]`."""
    configs = content["configs"][rows]
    poly = configs[:, 1] == 1
    columns = {
        "kernel": np.array(KERNELS)[configs[:, :3].argmax(1)],
        "C": 2.0 ** (6.0 * configs[:, 3]),
        "gamma": 10.0 ** (4.0 * configs[:, 4]),
        "degree": np.round(10.0 ** np.where(poly, configs[:, 5], np.log10(DEGREE[0]))),
    }
    u = encode(space, columns, str(path))
    names = tuple(f"meta_feature_{i + 1}" for i in range(content["meta_features"].shape[1]))
    tasks = tuple(
        ArchivedTask(
            name=task,
            base=task,
            space="svm",
            u=u,
            loss=-accuracy[rows, None].astype(np.float32),
            status=np.full(len(u), Status.OK, np.int8),
            descriptor=described.astype(np.float32),
        )
        for task, accuracy, described in zip(
            content["tasks"].tolist(), content["accuracy"], content["meta_features"], strict=True
        )
    )
    archive = Archive(name, {"svm": space}, tasks, metric="minus accuracy", descriptor_names=names)
    archive.validate()
    return archive
