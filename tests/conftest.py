"""The strict configuration that every test runs under, and the fixtures that they share.

Warnings are errors (`pyproject.toml`). Arrays of unequal rank never broadcast silently: write `x - mean[None, :]`.
Third-party code that does broadcast (distrax, Flax's recurrent cells) runs under `jax.numpy_rank_promotion("allow")`.
"""

import os

os.environ.setdefault("MPLBACKEND", "Agg")  # before matplotlib is first imported: no display is needed

from collections.abc import Iterator

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")

settings.register_profile("house", deadline=None, derandomize=True, database=None)  # the same examples on every run
settings.load_profile("house")


@pytest.fixture
def x64() -> Iterator[None]:
    """Runs one test with 64-bit types switched on, as the float64 fits of the library do."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key() -> jax.Array:
    """One typed key, the same for every test."""
    return jax.random.key(0)
