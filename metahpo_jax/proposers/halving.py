"""Resuming the promising: successive halving (Karnin et al. 2013; Jamieson and Talwalkar 2016) around any proposer of configurations."""

import jax
import jax.numpy as jnp

from metahpo_jax.base import Candidates, Context, Evaluation, Key, Proposal, Proposer, PyTree
from metahpo_jax.errors import ConfigError
from metahpo_jax.history import History
from metahpo_jax.proposers.pool import new_trial


def resume_best(configurations: Proposer, *, width: int = 9, eta: int = 3) -> Proposer:
    """One bracket after another: `width` new trials at the lowest rung, then the best 1/eta of a rung at eta times its fidelity.

    The lowest rung is max_fidelity / eta^k, with k the number of promotions that `width` allows. Diverged and failed trials are never
    promoted while another is left. Proposals at a higher fidelity carry the trial's number, so the objective resumes them. Ask one at
    a time: a promotion waits for its rung to be told.

    Raises:
      ConfigError: when `width` is not a power of `eta` that is at least `eta`, or `eta` is below 2.
    """
    if eta < 2:
        raise ConfigError(f"resume_best: eta must be at least 2, got {eta}.")
    rungs = [width]
    while rungs[-1] % eta == 0:
        rungs.append(rungs[-1] // eta)
    if rungs[-1] != 1 or len(rungs) < 2:
        raise ConfigError(f"resume_best: width must be a power of eta={eta} and at least {eta}, got {width}.")
    total, top = sum(rungs), len(rungs) - 1
    rung_of = jnp.asarray([r for r, size in enumerate(rungs) for _ in range(size)], jnp.int32)
    place_of = jnp.asarray([i for size in rungs for i in range(size)], jnp.int32)

    def fidelity(context: Context, rung: jax.Array) -> jax.Array:
        return (context.max_fidelity * jnp.asarray(float(eta), jnp.float32) ** (rung - top)).astype(jnp.float32)

    def init(key: Key, context: Context) -> tuple[Context, PyTree]:
        return context, configurations.init(key, context)

    def ask(
        key: Key, state: tuple[Context, PyTree], history: History, candidates: Candidates
    ) -> tuple[Proposal, tuple[Context, PyTree]]:
        context, inner = state
        asked = history.count - context.given
        bracket, step = asked // total, asked % total
        rung, place = rung_of[step], place_of[step]
        fresh, inner = configurations.ask(key, inner, history, candidates)
        fresh = new_trial(context, history, fresh.row, fresh.u, fresh.active).replace(fidelity=fidelity(context, rung))

        # The place-th best row of the rung below, in this bracket; rows are filled in the order of asking.
        index = jnp.arange(history.capacity) - context.given
        here = (index >= bracket * total) & (index < (bracket + 1) * total)
        below = here & (rung_of[index % total] == rung - 1)
        loss = jnp.where(history.ok, history.loss, jnp.finfo(jnp.float32).max)
        source = jnp.argsort(jnp.where(below, loss, jnp.inf), stable=True)[place]
        promoted = Proposal(
            trial=history.trial[source], row=history.row[source], u=history.u[source], active=history.active[source],
            fidelity=fidelity(context, rung),
        )  # fmt: skip
        return jax.tree.map(lambda a, b: jnp.where(rung == 0, a, b), fresh, promoted), (context, inner)

    def tell(state: tuple[Context, PyTree], proposal: Proposal, evaluation: Evaluation) -> tuple[Context, PyTree]:
        return state[0], configurations.tell(state[1], proposal, evaluation)

    return Proposer(init, ask, tell, configurations.traceable)
