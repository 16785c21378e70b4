"""The `metahpo` command: help, results on disk, and one sentence with exit code 2 for anything wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_metadataset

from metahpo_jax.cli import main
from metahpo_jax.evaluation import load
from metahpo_jax.metadata import save_metadataset


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table") / "tiny"
    save_metadataset(tiny_metadataset(), folder)
    return folder


def test_bench_writes_json_curves_and_a_picture(table: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "result.json"
    methods = "random,portfolio"
    assert (
        main(
            [
                "bench",
                "--benchmark",
                str(table),
                "--methods",
                methods,
                "--trials",
                "6",
                "--seeds",
                "2",
                "--audit",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    printed = capsys.readouterr()
    assert "audit: portfolio proposes the same" in printed.err
    record = json.loads(out.read_text())
    assert list(record["methods"]) == ["random", "portfolio"]
    assert set(record["methods"]["random"]["regret"]) == {str(t) for t in range(1, 7)}
    assert load(out).runs[0].regret.shape == (4, 2, 6)
    assert out.with_suffix(".png").stat().st_size > 10_000
    assert "portfolio" in printed.out


BAD = {
    "unknown method": (["bench", "--methods", "randon", "--out", "{tmp}/r.json"], "did you mean 'random'"),
    "no such benchmark": (["bench", "--benchmark", "{tmp}/nowhere", "--out", "{tmp}/r.json"], "nowhere"),
    "a file as benchmark": (["bench", "--benchmark", "{tmp}/file", "--out", "{tmp}/r.json"], "file"),
    "zero trials": (
        ["bench", "--benchmark", "{table}", "--methods", "random", "--trials", "0", "--out", "{tmp}/r.json"],
        "trials",
    ),
    "negative seeds": (
        [
            "bench",
            "--benchmark",
            "{table}",
            "--methods",
            "random",
            "--trials",
            "2",
            "--seeds",
            "-1",
            "--out",
            "{tmp}/r.json",
        ],
        "seeds",
    ),
    "more trials than configurations": (
        ["bench", "--benchmark", "{table}", "--methods", "random", "--trials", "99", "--out", "{tmp}/r.json"],
        "99",
    ),
    "out is no json": (["bench", "--benchmark", "{table}", "--methods", "random", "--out", "{tmp}/r.txt"], ".json"),
    "out cannot be written": (
        ["bench", "--benchmark", "{table}", "--methods", "random", "--out", "{tmp}/file/r.json"],
        "file",
    ),
    "report cannot be written": (["demo", "--quick", "--out", "{tmp}/file/report.html"], "file"),
    "unknown family": (["build", "--family", "nothing", "--out", "{tmp}/d"], "nothing"),
    "no tasks": (["build", "--family", "bundled", "--tasks", "0", "--out", "{tmp}/d"], "tasks"),
    "no configurations": (
        ["build", "--family", "bundled", "--configurations", "0", "--out", "{tmp}/d"],
        "configurations",
    ),
    "build cannot be written": (
        ["build", "--family", "bundled", "--tasks", "1", "--out", "{tmp}/file/d"],
        "file",
    ),
    "too few to select": (["select", "bundled", "--configurations", "1", "--out", "{tmp}/d"], "configurations"),
    "nothing like it": (["select", "bundled", "--tasks", "wein", "--out", "{tmp}/d"], "wine"),
    "once more is too little": (["build", "--family", "bundled", "--again", "1", "--out", "{tmp}/d"], "again"),
    "too few devices": (["build", "--family", "bundled", "--devices", "-1", "--out", "{tmp}/d"], "devices"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(case: str, table: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("not a folder")
    arguments, word = BAD[case]
    assert main([a.format(tmp=tmp_path, table=table) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert word in printed.err and "Traceback" not in printed.err + printed.out
    assert printed.err.strip().splitlines()[-1].startswith("metahpo: ")


@pytest.mark.parametrize(
    "arguments",
    [["bench", "--trials", "ten", "--out", "x.json"], ["bench", "--tirals", "3", "--out", "x.json"], ["tune"]],
)
def test_what_cannot_be_parsed_exits_with_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2


def test_help_shows_examples_and_starts_quickly_without_jax_work() -> None:
    environment = os.environ | {"COLUMNS": "160"}
    run = subprocess.run(
        [sys.executable, "-m", "metahpo_jax", "--help"], capture_output=True, text=True, env=environment
    )
    assert run.returncode == 0
    for word in ("demo", "bench", "build", "examples"):
        assert word in run.stdout


def test_the_recorded_meta_datasets_are_what_the_issue_asks_for() -> None:
    from metahpo_jax.metadata import load_metadataset
    from metahpo_jax.population import POINTS

    data, images = load_metadataset(), load_metadataset("images")
    assert len(data.bases) == len(data.tasks) >= 60 and len(data.u) == 256
    assert data.fidelity.tolist() == list(POINTS) and data.fidelity[-1] == 62_208
    assert not {"iris", "wine", "breast_cancer", "digits"} & set(data.bases)
    assert np.isfinite(data.objective()).all()
    assert len(images.tasks) == 100 and len(images.bases) >= 5 and len(images.u) == 128
    assert list(images.space) == ["blocks", "batch_size", "learning_rate", "dropout"]


def test_a_part_of_a_meta_dataset_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metahpo_jax.metadata import load_metadataset

    out = tmp_path / "part"
    assert main(["select", "bundled", "--tasks", "wine, iris", "--configurations", "8", "--out", str(out)]) == 0
    assert "2 tasks x 8 configurations" in capsys.readouterr().out
    part, whole = load_metadataset(out), load_metadataset("bundled")
    assert [task.name for task in part.tasks] == ["wine", "iris"]
    np.testing.assert_array_equal(part.valid_loss[0], whole.valid_loss[whole.index("wine"), :8])
    assert part.provenance[-1] == {"part_of": whole.content_hash, "tasks": 2, "configurations": 8}
