"""An example of a table of one's own: 12 real data sets, 60 network configurations each, no two data sets with the same ones.

python -m experiments.own_table.make    # writes runs.csv and space.toml beside this file, from the recorded meta-dataset
"""

import csv
import io
from pathlib import Path

import numpy as np

from metahpo_jax.files import write_atomically
from metahpo_jax.metadata import load_metadataset

TASKS, CONFIGURATIONS = 12, 60


def main() -> None:
    """Draws configurations for each task and writes them as people log them: one row per run, failures with an empty loss."""
    dataset = load_metadataset()
    configurations = dataset.configs()
    rng = np.random.default_rng(0)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["dataset", *dataset.space.names, "log_loss"])
    for t, task in enumerate(dataset.tasks[:TASKS]):
        for n in rng.permutation(len(configurations))[:CONFIGURATIONS]:
            loss = dataset.valid_loss[t, n, -1]
            values = [configurations[n].get(name, "") for name in dataset.space.names]
            writer.writerow([task.name, *values, f"{loss:.6g}" if np.isfinite(loss) else ""])
    here = Path(__file__).parent
    write_atomically(here / "runs.csv", table.getvalue().encode())
    write_atomically(here / "space.toml", space_file(dataset.space.to_json()).encode())


def space_file(space: dict) -> str:
    """The search space in the form that `metahpo import` reads."""
    lines = []
    for name, facts in space.items():
        lines.append(f"[{name}]")
        lines += [f"{field} = {_toml(value)}" for field, value in facts.items()]
        lines.append("")
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_toml(inner)}" for name, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


if __name__ == "__main__":
    main()
