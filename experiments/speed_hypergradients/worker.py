"""Our meta-training as a process: prints READY and facts, then runs one repetition per line on standard input.

python -m experiments.speed_hypergradients.worker ESTIMATOR PROBLEM.npz STEPS META_STEPS DEVICES
"""

import json
import os
import resource
import sys
import time
from typing import Any

ESTIMATOR, PROBLEM = sys.argv[1:3]
STEPS, META_STEPS, DEVICES = (int(given) for given in sys.argv[3:])

# Code that is generated in one piece needs 40 MB less than in pieces side by side, and no more time.
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false --xla_cpu_parallel_codegen_split_count=1"

from experiments.record import one_thread_each
from metahpo_jax import configure

one_thread_each()
configure(devices=DEVICES)

import jax
import jax.numpy as jnp
import numpy as np
import optax

from metahpo_jax.hypergrad import Theta, classifier, gradient_descent
from metahpo_jax.metalearners import maml
from metahpo_jax.spaces import Float, Free, Space
from metahpo_jax.tasks.base import Split, Task

FREE = Free(Space(learning_rate=Float(1e-4, 10.0, log=True)))


def tasks_of(data) -> Task:
    """The data as a batch of the library's tasks, of NumPy arrays: JAX's own would cost memory before there is anything to compute."""
    number, _, features = data["x"].shape
    rest: dict[str, Any] = {
        "class_mask": np.ones((number, data["w2"].shape[0]), bool), "n_features": np.full(number, features, np.int32),
        "prior_entropy": np.full(number, np.log(data["w2"].shape[0]), np.float32), "descriptor": np.zeros((number, 0), np.float32),
        "descriptor_mask": np.zeros((number, 0), bool),
    }  # fmt: skip

    def split(x: Any, y: Any) -> Split:
        count: Any = np.full(number, x.shape[1], np.int32)
        return Split(x, y, count)

    valid = split(data["valid_x"], data["valid_y"])
    return Task(train=split(data["x"], data["y"]), valid=valid, test=valid, **rest)


def main() -> None:
    """Compiles `META_STEPS` meta-steps, then repeats them on demand."""
    with np.load(PROBLEM) as data:
        tasks, rate, meta_rate = tasks_of(data), float(data["rate"]), float(data["meta_rate"])
        stack = [(w, np.zeros(len(w), np.float32)) for w in (data["w1"], data["w2"])]
    network = classifier(1, stack[0][0].shape[0], activation="relu")._replace(init=lambda key, task: stack)
    inner = gradient_descent(network, FREE, steps=STEPS)
    theta = Theta(FREE.encode({"learning_rate": rate}))
    learner = maml(
        inner, theta, tasks, estimator=ESTIMATOR, max_norm=None, optimiser=optax.adam(meta_rate), devices=jax.devices()
    )

    def meta_training(state, tasks):
        def step(state, key):
            state, metrics = learner.step(key, state, tasks)
            return state, (metrics.loss, metrics.gradient_norm)

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(0), META_STEPS))[1]

    start = learner.init(jax.random.key(0))
    began = time.perf_counter()
    call = jax.jit(meta_training).lower(start, tasks).compile()
    compiling = time.perf_counter() - began
    losses, slopes = jax.tree.map(np.asarray, call(start, tasks))
    # Of the logarithm of the rate, as the peers have it, by that of the free number.
    log_rate = jax.grad(lambda z: jnp.log(FREE.decode({"learning_rate": z})["learning_rate"]))(theta.z["learning_rate"])
    facts = {
        "work": META_STEPS, "first_loss": float(losses[0]), "first_slope": float(slopes[0] / log_rate),
        "compile_seconds": round(compiling, 2),
    }  # fmt: skip
    print("READY", json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        jax.block_until_ready(call(start, tasks))
        seconds = time.perf_counter() - began
        print(seconds, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)


if __name__ == "__main__":
    main()
