# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A meta-dataset of one's own CSV files, and a look at it
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/metahpo/metahpo_jax/blob/main/notebooks/own_csv.ipynb)
#
# Whoever has a folder of tables to classify has what learning to tune needs: related tasks. This notebook makes tasks of CSV files, trains
# the same networks on each of them, and looks at the record: how each task is learned, which hyperparameters matter, what is covered.

# %%
# Installs the package where it is missing. JAX stays as it is when it is there already (as on Colab, with its accelerator).
import importlib.util
import subprocess
import sys
from importlib.metadata import version

if importlib.util.find_spec("metahpo_jax") is None:
    there = [f"{name}=={version(name)}" for name in ("jax", "jaxlib") if importlib.util.find_spec(name)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *there, "metahpo-jax"], check=True)

# %%
# %matplotlib inline
import csv
import tempfile
from pathlib import Path

import numpy as np
from sklearn import datasets

from metahpo_jax.evaluation.survey import (
    coverage_figure,
    descriptors_figure,
    importance_figure,
    learning_curves_figure,
    rank_correlation_figure,
    write_survey,
)
from metahpo_jax.learners import mlp_family
from metahpo_jax.metadata.builder import build_meta_dataset
from metahpo_jax.population import configure
from metahpo_jax.tasks import csv_family

configure()  # trains on all cores of a CPU; before anything else runs on JAX

# %% [markdown]
# Put the path of your own folder here. So that the notebook runs anywhere, this one writes four files first, out of data that come with
# scikit-learn. A file needs a header and commas; each row is an example and the last column its class. Some cells of the second column
# are emptied, since real tables have gaps: columns of numbers and of names are told apart by their content, and missing values are kept
# as such.

# %%
work = Path(tempfile.mkdtemp())
folder = work / "tables"
folder.mkdir()
rng = np.random.default_rng(0)
for name in ("iris", "wine", "breast_cancer", "digits"):
    data = getattr(datasets, f"load_{name}")()
    cells = data.data.astype(str)
    cells[rng.random(len(cells)) < 0.05, 1] = ""
    with open(folder / f"{name}.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*data.feature_names, "class"])
        writer.writerows([*row, data.target_names[label]] for row, label in zip(cells, data.target, strict=True))

print((folder / "iris.csv").read_text()[:220])

# %% [markdown]
# A family of tasks: one per file, called as the file. Name the column of the label with `target=`, columns that must not be learned from,
# such as identifiers, with `drop=`. What cannot be understood is said, with the file, row and column.

# %%
family = csv_family(folder)
for name in family.names:
    data = family.load(name)
    print(f"{name}: {len(data.y_train)} rows to train on, {data.x_train.shape[1]} features, {data.n_classes} classes")

# %% [markdown]
# Now the same 32 configurations are really trained on each. Depth and batch size are fixed, which leaves eight hyperparameters and few
# programs to compile: some minutes become one. The build may be stopped at any time: run the cell again, and it goes on.

# %%
networks = mlp_family(depth=2, batch_size=64)
recorded = build_meta_dataset(family, learner=networks, configurations=32, samples=62_208 // 3, out=work / "recorded")
print(f"{len(recorded.tasks)} tasks x {len(recorded.u)} configurations x {len(recorded.fidelity)} points")

# %% [markdown]
# ## How each task is learned
# Losses are shares of the prior entropy: at 1 nothing has been learned. The gap between best and median is what tuning has to gain.

# %%
learning_curves_figure(recorded)

# %% [markdown]
# ## Which hyperparameters matter
# Functional ANOVA (Hutter, Hoos and Leyton-Brown, 2014): the share of the loss's variance that each explains by itself. The small numbers
# say how much of the variance the forest behind it predicts out of bag. With 32 configurations that is little: a sketch, not a result.

# %%
importance_figure(recorded)

# %% [markdown]
# ## What is covered
# The configurations are a scrambled Sobol sequence, and so more even than random ones: below 1 in the table.

# %%
coverage_figure(recorded)

# %% [markdown]
# And the tasks: near ones have similar descriptors, and a high rank correlation says that what is good on one is good on the other.

# %%
descriptors_figure(recorded)

# %%
rank_correlation_figure(recorded)

# %% [markdown]
# All of it as one page that can be mailed:

# %%
write_survey(work / "look.html", recorded)
print(f"{(work / 'look.html').stat().st_size / 1e3:.0f} kB")
