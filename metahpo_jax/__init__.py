"""Meta-learned hyperparameter optimisation in JAX: learn across tasks how to tune the next one.

Three lines tune a function of one's own::

    from metahpo_jax import Float, Space, minimize

    best = minimize(lambda config: (config["x"] - 0.3) ** 2, Space(x=Float(0.0, 1.0)), trials=20)

Names are imported when they are first used (PEP 562), so that `import metahpo_jax` costs no more than `import jax`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "Space": "metahpo_jax.spaces",
    "Float": "metahpo_jax.spaces",
    "Int": "metahpo_jax.spaces",
    "Choice": "metahpo_jax.spaces",
    "Status": "metahpo_jax.base",
    "Proposal": "metahpo_jax.base",
    "Evaluation": "metahpo_jax.base",
    "Context": "metahpo_jax.base",
    "Candidates": "metahpo_jax.base",
    "Proposer": "metahpo_jax.base",
    "Objective": "metahpo_jax.base",
    "Learner": "metahpo_jax.base",
    "Surrogate": "metahpo_jax.base",
    "MetaLearner": "metahpo_jax.base",
    "HyperGrad": "metahpo_jax.base",
    "History": "metahpo_jax.history",
    "MetaDataset": "metahpo_jax.metadata",
    "load_metadataset": "metahpo_jax.metadata",
    "random": "metahpo_jax.proposers",
    "sobol": "metahpo_jax.proposers",
    "grid": "metahpo_jax.proposers",
    "portfolio": "metahpo_jax.proposers",
    "gp_bo": "metahpo_jax.proposers",
    "Prior": "metahpo_jax.metalearners",
    "learn_prior": "metahpo_jax.metalearners",
    "configure": "metahpo_jax.population",
    "train_population": "metahpo_jax.population",
    "fit": "metahpo_jax.training",
    "minimize": "metahpo_jax.tuning",
    "Study": "metahpo_jax.tuning",
    "MetaHPOError": "metahpo_jax.errors",
}

if TYPE_CHECKING:
    from metahpo_jax.base import Candidates as Candidates
    from metahpo_jax.base import Context as Context
    from metahpo_jax.base import Evaluation as Evaluation
    from metahpo_jax.base import HyperGrad as HyperGrad
    from metahpo_jax.base import Learner as Learner
    from metahpo_jax.base import MetaLearner as MetaLearner
    from metahpo_jax.base import Objective as Objective
    from metahpo_jax.base import Proposal as Proposal
    from metahpo_jax.base import Proposer as Proposer
    from metahpo_jax.base import Status as Status
    from metahpo_jax.base import Surrogate as Surrogate
    from metahpo_jax.errors import MetaHPOError as MetaHPOError
    from metahpo_jax.history import History as History
    from metahpo_jax.metadata import MetaDataset as MetaDataset
    from metahpo_jax.metadata import load_metadataset as load_metadataset
    from metahpo_jax.metalearners import Prior as Prior
    from metahpo_jax.metalearners import learn_prior as learn_prior
    from metahpo_jax.population import configure as configure
    from metahpo_jax.population import train_population as train_population
    from metahpo_jax.proposers import gp_bo as gp_bo
    from metahpo_jax.proposers import grid as grid
    from metahpo_jax.proposers import portfolio as portfolio
    from metahpo_jax.proposers import random as random
    from metahpo_jax.proposers import sobol as sobol
    from metahpo_jax.spaces import Choice as Choice
    from metahpo_jax.spaces import Float as Float
    from metahpo_jax.spaces import Int as Int
    from metahpo_jax.spaces import Space as Space
    from metahpo_jax.training import fit as fit
    from metahpo_jax.tuning import Study as Study
    from metahpo_jax.tuning import minimize as minimize

__all__ = ["__version__", *_EXPORTS]  # pyright: ignore[reportUnsupportedDunderAll]  (one list of names, held to the imports by a test)


def __getattr__(name: str) -> Any:
    """Imports `name` from its module on first use and keeps it."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
