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
# # MAML for hyperparameters
#
# [![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/metahpo/metahpo_jax/blob/main/notebooks/maml.ipynb)
#
# A learning rate can be learned by gradient descent, like a weight: train a network with it, look at the validation loss, and differentiate
# that loss *through the training*. This notebook does so on real tables: it looks at one such derivative, learns a whole configuration over
# three data sets, and uses it on a fourth, with and without a few steps of adaptation. At the end it tries to learn where there is nothing
# to be learned.

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
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from metahpo_jax.hypergrad import Theta, classifier, episode, forward, gradient_descent, relative
from metahpo_jax.metalearners import adapt, configuration, maml, started_at
from metahpo_jax.proposers import random
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.tasks import TaskShape, bundled, to_task
from metahpo_jax.training import fit

# %% [markdown]
# ## Tasks
#
# Four data sets that come with scikit-learn, padded to one shape so that one compiled program trains on all of them. `digits` is held out.

# %%
family, shape = bundled(), TaskShape(rows=4096, eval_rows=1024, features=64, classes=16)
known = ("iris", "wine", "breast_cancer")
tasks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[to_task(family.load(name), shape) for name in known])
new_task = to_task(family.load("digits"), shape)

# %% [markdown]
# ## One training, and its derivative
#
# An `Inner` is the training of one task: here 100 updates of a small network by gradient descent with momentum, in which three
# hyperparameters are free. They live in unconstrained space, where any number stands for a value within the bounds. The loss is that on the
# validation rows, in units of the loss of having learned nothing, so that data sets weigh alike.

# %%
space = Space(learning_rate=Float(1e-3, 1.0, log=True), momentum=Float(0.0, 0.99), label_smoothing=Float(0.0, 0.2))
free = Free(space)
inner = gradient_descent(relative(classifier(depth=1, width=32, batch=32)), free, steps=100)

default = Theta(free.encode({"learning_rate": 0.01, "momentum": 0.5, "label_smoothing": 0.1}))
key = jax.random.key(0)
loss = jax.jit(lambda theta, task: episode(inner, key, theta, task)[0])
print(f"loss on digits with the default: {loss(default, new_task):.3f}")

# %% [markdown]
# The derivative through all of the 100 updates, by forward mode, beside a difference quotient. Code that takes the *value* of the learning
# rate out of the program (`.item()`) has no such derivative: nothing flows, and nothing is learned.

# %%
estimate, _ = jax.jit(forward(inner).step)(key, default, (), new_task)


def moved(name: str, by: float) -> Theta:
    return Theta(default.z | {name: default.z[name] + by})


for name, slope in estimate.gradient.z.items():
    quotient = (loss(moved(name, 0.02), new_task) - loss(moved(name, -0.02), new_task)) / 0.04
    print(f"{name:16s} derivative {slope:+.4f}   difference quotient {quotient:+.4f}")

# %% [markdown]
# ## Learning over three data sets
#
# `maml` descends the mean loss after training over the tasks of a batch; `fit` is the loop. Four seeds learn side by side in one program.

# %%
learner = maml(inner, default, tasks, rate=0.1)
result = fit(
    learner,
    lambda key, data: data,
    jax.random.split(key, 4),
    steps=80,
    chunk=20,
    data=tasks,
    data_axes=None,
    batch=True,
)
theta = jax.vmap(learner.export)(result.meta_state)

plt.plot(result.metrics.loss.T)
plt.xlabel("meta-step")
plt.ylabel("loss after training (1: nothing learned)")
plt.show()

first = jax.tree.map(lambda leaf: leaf[0], theta)
print({name: round(value, 3) for name, value in free.config(first.z).items()})

# %% [markdown]
# ## On a data set that was never seen
#
# The first evaluation on `digits` uses what was learned as it is. `adapt` then takes hypergradient steps on `digits` itself; each is one
# more training (of about the cost of four, since three derivatives travel along). Beside it: the default, and rates of a grid with the rest
# as learned.

# %%
evaluations = jax.jit(lambda theta: adapt(forward(inner), theta, new_task, key, evaluations=3).loss)
print(f"default             {loss(default, new_task):.3f}")
print("learned, adapted    " + "  ".join(f"{x:.3f}" for x in evaluations(first)))
print("default, adapted    " + "  ".join(f"{x:.3f}" for x in evaluations(default)))

rates = np.geomspace(2e-3, 0.9, 25)
z = [free.encode(free.config(first.z) | {"learning_rate": float(rate)}) for rate in rates]
grid = jax.vmap(lambda z: loss(Theta(z), new_task))(jax.tree.map(lambda *leaves: jnp.stack(leaves), *z))
plt.semilogx(rates, np.minimum(grid, 1.2), marker=".", label="grid on digits")
plt.axvline(free.config(first.z)["learning_rate"], color="tab:orange", label="learned on three others")
plt.axvline(free.config(default.z)["learning_rate"], color="grey", linestyle=":", label="default")
plt.xlabel("learning rate")
plt.ylabel("loss on digits")
plt.legend()
plt.show()

# %% [markdown]
# ## Any search can start there
#
# What was learned is an ordinary configuration. `started_at` makes a proposer that tries it first and then goes on with any other: random
# search here, Bayesian optimisation as well. `metahpo_jax.minimize` and studies take such a proposer.

# %%
u = configuration(first, free, {}, space)
proposer = started_at(u, space, random(space))
print(space.decode(u))

# %% [markdown]
# ## Where nothing can be learned
#
# The same with the labels in random order: the best that a network can do is to predict the frequencies of the classes, a loss of 1. What is
# learned is to do little harm, with as much label smoothing as the bounds allow; the loss does not get below 1, and so it says that there is
# nothing here.

# %%
rng = np.random.default_rng(0)


def shuffled(task):
    """The same task with the labels of every split in random order."""

    def mixed(split):
        y = np.asarray(split.y).copy()
        for row, count in zip(y, np.asarray(split.count), strict=True):
            row[:count] = rng.permutation(row[:count])
        return split.replace(y=jnp.asarray(y))

    return task.replace(train=mixed(task.train), valid=mixed(task.valid), test=mixed(task.test))


noise = shuffled(tasks)
nothing = fit(learner, lambda key, data: data, jax.random.key(1), steps=80, chunk=20, data=noise)
print({name: round(value, 4) for name, value in free.config(learner.export(nothing.meta_state).z).items()})
print(f"loss after meta-training: {nothing.metrics.loss[-10:].mean():.3f}")
