"""One of our competitors as a process: prints READY and facts, then runs one repetition per line on standard input.

python -m experiments.speed_population.worker KIND SIZE PROBLEM.npz DEVICES [pinned]
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable

KIND, SIZE, PROBLEM, DEVICES = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
if sys.argv[5:] == ["pinned"]:  # to one core
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.environ.pop("XLA_FLAGS", None)
os.environ["OPENBLAS_NUM_THREADS"] = "1"
if not KIND.endswith("vmap"):  # those run with JAX's defaults
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

import numpy as np

from metahpo_jax.population import configure

if DEVICES > 1:
    configure(devices=DEVICES)

import jax
import jax.numpy as jnp

from experiments.speed_population import config, problem
from metahpo_jax.base import training_keys
from metahpo_jax.learners import MLPConfig, cnn_family, mlp_family
from metahpo_jax.learners.cnn import cnn, cnn_space
from metahpo_jax.learners.mlp import mlp
from metahpo_jax.learners.settings import Settings
from metahpo_jax.population import train_population
from metahpo_jax.population.plan import executed_flops, plan, shape_of

Rep = Callable[[], float]  # one repetition; returns a mean loss
KEYS = jax.random.key(config.SEED)[None, None]


def ours() -> tuple[Rep, float]:
    """The engine."""
    with np.load(PROBLEM) as data:
        task = problem.task_of(data["x"], data["y"])
    family, u, horizon = problem.family_of(SIZE), problem.points_of(SIZE), config.STEPS[SIZE] * config.BATCH

    def rep() -> float:
        return float(
            train_population(family, u, [task], KEYS, horizon=horizon, points=(horizon,)).curve.train_loss.mean()
        )

    return rep, problem.flops(SIZE) * config.MODELS[SIZE]


def vmap() -> tuple[Rep, float]:
    """What anyone would write: one `vmap` over all models of the whole run."""
    with np.load(PROBLEM) as data:
        learner, h, task = problem.learner_of(SIZE, data["x"], data["y"], fused=False)
    horizon = config.STEPS[SIZE] * config.BATCH
    call = jax.jit(whole(learner, horizon))
    return lambda: float(call(h, task).mean()), problem.flops(SIZE) * config.MODELS[SIZE]


def whole(learner, horizon: int):
    """Training losses `[C]` of whole runs."""
    init_key, train_key = training_keys(jax.random.key(config.SEED))

    def run(h, task):
        states = jax.vmap(learner.init, (None, 0, None))(init_key, h, task)
        return learner.train(train_key, h, states, task, 0, horizon)[0].train_loss

    return run


def mixed_points() -> np.ndarray:
    """Configurations of the whole space, depth, width, batch and optimiser among them; with SIZE "quick", some of its capacities."""
    space = mlp_family().space
    rows = np.random.default_rng(config.SEED).random((config.MIXED, space.size))
    u = np.asarray([space.encode(space.decode(row)) for row in rows], np.float32)
    if SIZE != "quick":
        return u
    chosen = [space.decode(row) for row in u]
    return u[[c["depth"] == config.QUICK_DEPTH and c["batch_size"] >= config.QUICK_BATCH for c in chosen]]


def mixed_task():
    """Thirty features and four classes, in the shape that the catalogue would give them."""
    rng = np.random.default_rng(config.SEED)
    x = np.zeros((4096, 32), np.float32)
    x[:, :30] = rng.standard_normal((4096, 30))
    y = np.argmax(x @ rng.standard_normal((32, 4)), 1).astype(np.int32)
    return problem.task_of(x, y).replace(n_features=jnp.asarray(30, jnp.int32))


def mixed() -> tuple[Rep, float]:
    """The engine on a mixed population."""
    family, u, task, samples = mlp_family(), mixed_points(), mixed_task(), config.MIXED_SAMPLES
    settings, capacities = family.configs(u)

    def rep() -> float:
        return float(
            np.nanmean(train_population(family, u, [task], KEYS, horizon=samples, points=(samples,)).curve.train_loss)
        )

    return rep, float(family.useful(settings, capacities, task).sum()) * samples


def unmasked() -> tuple[Rep, float]:
    """The engine on populations of the same structures where nothing is masked and only rate and decay vary: what the traced rest costs."""
    task, samples = mixed_task().replace(n_features=jnp.asarray(32, jnp.int32)), config.MIXED_SAMPLES
    _, capacities = mlp_family().configs(mixed_points())
    rng, work, jobs = np.random.default_rng(config.SEED), 0.0, []
    for capacity in sorted(set(capacities)):
        family = mlp_family(
            depth=capacity.depth, width=capacity.width, batch_size=capacity.micro, activation="relu", optimiser="momentum", dropout=0.0,
            label_smoothing=0.0, schedule="constant",
        )  # fmt: skip
        u = rng.random((capacities.count(capacity), 2)).astype(np.float32) * 0.75
        jobs.append((family, u))
        work += float(family.useful(*family.configs(u), task).sum()) * samples

    def rep() -> float:
        found = [
            train_population(f, u, [task], KEYS, horizon=samples, points=(samples,)).curve.train_loss for f, u in jobs
        ]
        return float(np.nanmean(np.concatenate(found, axis=2)))

    return rep, work


def mixed_vmap() -> tuple[Rep, float]:
    """`vmap` of the plain layers over the same groups."""
    family, u, task, samples = mlp_family(), mixed_points(), mixed_task(), config.MIXED_SAMPLES
    settings, capacities = family.configs(u)
    calls = []
    for capacity in sorted(set(capacities)):
        rows = [i for i, c in enumerate(capacities) if c == capacity]
        h: MLPConfig = jax.tree.map(lambda x, rows=rows: jnp.asarray(x[rows]), settings)
        calls.append((jax.jit(whole(mlp(capacity, horizon=samples, points=(samples,), fused=False), samples)), h))
    return (
        lambda: float(np.nanmean(np.concatenate([np.asarray(call(h, task)) for call, h in calls]))),
        float(family.useful(settings, capacities, task).sum()) * samples,
    )


def image_task():
    """Noise in ten classes, as images."""
    rng = np.random.default_rng(config.SEED)
    x = rng.standard_normal((2048, config.IMAGE_SIDE**2)).astype(np.float32)
    return problem.task_of(x, np.arange(len(x), dtype=np.int32) % config.IMAGE_CLASSES)


def convolution() -> tuple[Rep, float]:
    """The engine on convolutional networks of one structure."""
    family, u, task = cnn_family(**config.CONVOLUTION), convolution_points(), image_task()
    samples = config.CONVOLUTION_SAMPLES

    def rep() -> float:
        return float(
            np.nanmean(train_population(family, u, [task], KEYS, horizon=samples, points=(samples,)).curve.train_loss)
        )

    return rep, float(family.useful(*family.configs(u), task).sum()) * samples


def convolution_vmap() -> tuple[Rep, float]:
    """One `vmap` over the same networks, for fewer samples."""
    family, u, task = cnn_family(**config.CONVOLUTION), convolution_points(), image_task()
    samples = config.CONVOLUTION_SAMPLES_VMAP
    settings, capacities = family.configs(u)
    learner = cnn(
        capacities[0], side=config.IMAGE_SIDE, horizon=samples, points=(samples,), settings=Settings(cnn_space(), config.CONVOLUTION),
        fused=False,
    )  # fmt: skip
    call, h = jax.jit(whole(learner, samples)), jax.tree.map(jnp.asarray, settings)
    return lambda: float(np.nanmean(call(h, task))), float(family.useful(settings, capacities, task).sum()) * samples


def convolution_points() -> np.ndarray:
    """Rates and decays, `[models, 2]`."""
    return np.random.default_rng(config.SEED).random((config.CONVOLUTION_MODELS, 2)).astype(np.float32) * 0.75


def product() -> tuple[Rep, float]:
    """The limit: 1024 x 1024 matrix products, one per device."""
    devices = jax.devices()
    values = jnp.asarray(np.random.default_rng(0).standard_normal((len(devices), 1024, 1024)), jnp.float32)
    repeat = 20

    def chain(x):
        return jax.lax.fori_loop(0, repeat, lambda _, y: (y @ x) * jnp.float32(1 / 32), x)

    if len(devices) == 1:
        call = jax.jit(jax.vmap(chain))
    else:
        mesh = jax.sharding.Mesh(np.asarray(devices), ("d",))
        spec = jax.sharding.PartitionSpec("d")
        values = jax.device_put(values, jax.sharding.NamedSharding(mesh, spec))
        call = jax.jit(
            jax.shard_map(lambda x: chain(x[0])[None], mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
        )
    return lambda: float(jax.block_until_ready(call(values))[0, 0, 0]), 2.0 * 1024**3 * repeat * len(devices)


def count() -> tuple[Rep, float]:
    """Many short trainings: SIZE of them; the work is their number."""
    number, family = int(SIZE), mlp_family(depth=1, width=16, batch_size=16)
    u = np.random.default_rng(config.SEED).random((min(number, 1000), family.space.size)).astype(np.float32)
    u = np.tile(u, (number // len(u), 1))
    rng = np.random.default_rng(config.SEED)
    x = rng.standard_normal((512, 16)).astype(np.float32)
    task = problem.task_of(x, np.argmax(x @ rng.standard_normal((16, 4)), 1).astype(np.int32))
    samples = config.COUNT_SAMPLES
    return (
        lambda: float(
            np.nanmean(train_population(family, u, [task], KEYS, horizon=samples, points=(samples,)).curve.train_loss)
        ),
        float(number),
    )


def useful_share() -> float:
    """Useful over executed FLOPs of the mixed population's plan."""
    family, task = mlp_family(), mixed_task()
    settings, capacities = family.configs(mixed_points())
    groups = plan(
        family, capacities, np.asarray(settings.accumulate), [shape_of(task)], seeds=1, horizon=config.MIXED_SAMPLES
    )
    return float(family.useful(settings, capacities, task).sum() / executed_flops(family, groups, 1))


def main() -> None:
    """Warms up, says so, and repeats on demand."""
    make = {
        "ours": ours, "vmap": vmap, "mixed": mixed, "unmasked": unmasked, "mixed_vmap": mixed_vmap, "convolution": convolution,
        "convolution_vmap": convolution_vmap, "product": product, "count": count,
    }[KIND]  # fmt: skip
    rep, work = make()
    began = time.perf_counter()
    loss = rep()
    facts = {
        "work": work,
        "loss": loss,
        "first_seconds": round(time.perf_counter() - began, 2),
        "devices": jax.device_count(),
    }
    if KIND == "mixed":
        facts["useful_share"] = useful_share()
    print("READY", json.dumps(facts), flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        rep()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(time.perf_counter() - began, peak, flush=True)


if __name__ == "__main__":
    main()
