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
# # Tuning a network that nobody has tuned, in a handful of trials
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/metahpo/metahpo_jax/blob/main/notebooks/quickstart.ipynb)
#
# `metahpo_jax` learns *how to tune* from recorded tuning, then tunes new tasks. This notebook looks at the record, learns from it, and
# tunes a data set that was never learned from, by really training networks.

# %%
# Installs the package where it is missing. JAX stays as it is when it is there already (as on Colab, with its accelerator).
import importlib.util
import subprocess
import sys
from importlib.metadata import version

if importlib.util.find_spec("metahpo_jax") is None:
    there = [f"{name}=={version(name)}" for name in ("jax", "jaxlib") if importlib.util.find_spec(name)]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *there, "metahpo-jax"], check=True)

import jax

import metahpo_jax as mh

mh.configure()  # trains on all cores of a CPU; before anything else runs on JAX
print("JAX", jax.__version__, "on", jax.default_backend())

# %%
import matplotlib.pyplot as plt
import numpy as np

recorded = mh.load_metadataset()
print(
    f"{len(recorded.tasks)} real data sets x {len(recorded.u)} configurations, curves up to {recorded.fidelity[-1]:,.0f} samples"
)
recorded.space

# %% [markdown]
# Each data set was learned by the same 256 networks. The best of them differ from task to task, but not by chance: some are good nearly
# everywhere. That is what can be learned.

# %%
fig, axes = plt.subplots(1, 2, figsize=(11, 3.6))
task = recorded.tasks[0]
axes[0].plot(recorded.fidelity, recorded.valid_loss[0, ::4].T, lw=0.6, alpha=0.6)
axes[0].axhline(task.prior_entropy, color="black", ls=":", label="nothing learned")
axes[0].set(xscale="log", ylim=(0, 1.5 * task.prior_entropy), xlabel="samples", ylabel="validation log-loss")
axes[0].set_title(f"learning curves on {task.name}")
axes[0].legend()
loss = recorded.objective()
regret = (loss - loss.min(1, keepdims=True)) / (loss.max(1, keepdims=True) - loss.min(1, keepdims=True))
axes[1].imshow(regret[:, np.argsort(regret.mean(0))], aspect="auto", cmap="viridis")
axes[1].set(title="regret: bright is bad", xlabel="configurations, good ones first", ylabel="data set")
fig.tight_layout()

# %% [markdown]
# Now learn from all of them: a Gaussian process whose mean and kernel are pre-trained (HyperBO), some seconds of work.

# %%
prior = mh.learn_prior(recorded)
prior.name

# %% [markdown]
# And tune something new. `train` really trains a network on scikit-learn's wine data, which is not among the recorded ones.

# %%
from metahpo_jax.learners import mlp_family
from metahpo_jax.population import train_population
from metahpo_jax.tasks import bundled

wine = bundled().task("wine")


def train(config):
    """Validation log-loss of one network, capped where it has learned nothing."""
    point = recorded.space.encode(config)[None].astype(np.float32)
    result = train_population(mlp_family(), point, [wine], jax.random.key(0)[None, None], coarse=True)
    return float(np.nan_to_num(result.curve.valid_loss[0, 0, 0, -1], nan=np.inf).clip(max=float(wine.prior_entropy)))


learned = mh.minimize(train, recorded.space, trials=8, prior=prior)
uniform = mh.minimize(train, recorded.space, trials=8, proposer=mh.random(recorded.space))
learned

# %%
fig, ax = plt.subplots(figsize=(6, 3.6))
for name, result in {"learned prior": learned, "random search": uniform}.items():
    losses = [record.loss for record in result.trials]
    ax.plot(range(1, len(losses) + 1), np.fmin.accumulate(losses), marker="o", label=name)
ax.set(xlabel="networks trained", ylabel="best validation log-loss", title="wine, one run of each")
ax.legend()
fig.tight_layout()

# %% [markdown]
# One run proves nothing: `metahpo demo` repeats this on three data sets with several seeds and intervals, and `metahpo bench` on every
# recorded data set, each held out in turn. To tune a function of your own, describe its `Space` and call `minimize`, as above.
