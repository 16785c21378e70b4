"""Our meta-training as a process: prints READY and facts, then runs one repetition per line on standard input.

python -m experiments.speed_hypergradients.worker ESTIMATOR PROBLEM.npz STEPS META_STEPS DEVICES
"""

import json
import resource
import sys
import time

ESTIMATOR, PROBLEM = sys.argv[1:3]
STEPS, META_STEPS, DEVICES = (int(given) for given in sys.argv[3:])

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
    """The data as a batch of the library's tasks."""
    number, _, features = data["x"].shape
    classes = data["w2"].shape[0]

    def split(x: np.ndarray, y: np.ndarray) -> Split:
        return Split(jnp.asarray(x), jnp.asarray(y), jnp.full(number, x.shape[1], jnp.int32))

    valid = split(data["valid_x"], data["valid_y"])
    return Task(
        train=split(data["x"], data["y"]), valid=valid, test=valid, class_mask=jnp.ones((number, classes), bool),
        n_features=jnp.full(number, features, jnp.int32), prior_entropy=jnp.full(number, np.log(classes), jnp.float32),
        descriptor=jnp.zeros((number, 0), jnp.float32), descriptor_mask=jnp.zeros((number, 0), bool),
    )  # fmt: skip


def main() -> None:
    """Compiles `META_STEPS` meta-steps, then repeats them on demand."""
    with np.load(PROBLEM) as data:
        tasks, rate, meta_rate = tasks_of(data), float(data["rate"]), float(data["meta_rate"])
        stack = [(jnp.asarray(w), jnp.zeros(len(w), jnp.float32)) for w in (data["w1"], data["w2"])]
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
