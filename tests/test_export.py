"""Every public compiled step lowers for CPU, CUDA and TPU, since the machines that run this suite have no accelerator."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import tiny_metadataset, tiny_space
from jax import export

from metahpo_jax import driver
from metahpo_jax.base import Candidates, Evaluation, no_candidates
from metahpo_jax.learners import mlp_family
from metahpo_jax.metadata import archive_of, sources_of
from metahpo_jax.metalearners import learn_portfolio
from metahpo_jax.metalearners.pretrained_gp import PretrainedGP, draw_tasks, pretrained_gp, pretraining, training_table
from metahpo_jax.population.plan import shape_of
from metahpo_jax.population.programs import Schedule, group_program
from metahpo_jax.proposers import gp_bo, grid, portfolio, random, resume_best, sobol
from metahpo_jax.surrogates.pretrained import theta_template
from metahpo_jax.training import program

PLATFORMS = ("cpu", "cuda", "tpu")
SPACE = tiny_space()
DATA = tiny_metadataset()
LIST = learn_portfolio(DATA.u, DATA.objective(), 4)
PROPOSERS = {
    "random": random(SPACE),
    "sobol": sobol(SPACE),
    "grid": grid(SPACE),
    "portfolio": portfolio(LIST, SPACE),
    "resume_best": resume_best(random(SPACE)),
    "gp": gp_bo(SPACE, opening=sobol(SPACE)),
    "pretrained_gp": pretrained_gp(PretrainedGP(theta_template(SPACE), LIST), SPACE),
}


def exported(step, *arguments) -> None:
    module = export.export(jax.jit(step), platforms=PLATFORMS)(*arguments)
    assert tuple(module.platforms) == PLATFORMS


@pytest.mark.parametrize("pool", [True, False], ids=["pool", "continuous"])
@pytest.mark.parametrize("name", PROPOSERS)
def test_ask_and_tell_export(name: str, pool: bool) -> None:
    proposer = PROPOSERS[name]
    candidates = no_candidates(SPACE.size)
    if pool:
        candidates = Candidates(jnp.asarray(DATA.u), jnp.asarray(DATA.active), jnp.ones((len(DATA.u),), bool))
    run = driver.start(jax.random.key(0), proposer, SPACE.context(budget=8), 8)

    def ask(data, run):
        return driver.ask(jax.random.wrap_key_data(data), proposer, run, candidates)

    exported(ask, jnp.zeros(2, jnp.uint32), run)
    proposal, run = jax.eval_shape(ask, jnp.zeros(2, jnp.uint32), run)
    number = jnp.zeros((), jnp.float32)
    evaluation = Evaluation(number, number, number, jnp.zeros((), jnp.int32))
    exported(
        lambda run, proposal, evaluation: driver.tell(proposer, run, proposal, evaluation), run, proposal, evaluation
    )


def test_training_a_population_exports() -> None:
    from helpers import make_task

    family = mlp_family()
    config, touched = family.configs(np.full((1, family.space.size), 0.4, np.float32))
    h = jax.tree.map(lambda x: jnp.asarray(x)[None, None], config)
    task = jax.tree.map(lambda x: jnp.asarray(x)[None, None], make_task())
    step = group_program(family.learner(touched[0], shape_of(make_task()), 768, (256, 768)), Schedule(768, (256, 768)))
    one = jnp.ones((1, 1), jnp.int32)
    exported(step, jnp.zeros((1, 1, 2), jnp.uint32), h, task, one - 1, one)


def test_meta_training_exports() -> None:
    learner = pretraining(SPACE, steps=4)
    table = training_table(SPACE, sources_of(archive_of(DATA)), len(DATA.tasks), len(DATA.u))
    init, run = program(learner, draw_tasks, 2)

    def chunk(data, table):
        key = jax.random.wrap_key_data(data)
        return run(init(key), key, table, jnp.int32(0), jnp.int32(2))[1]

    exported(chunk, jnp.zeros(2, jnp.uint32), table)
