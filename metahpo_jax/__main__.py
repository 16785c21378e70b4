"""`python -m metahpo_jax` is the `metahpo` command."""

import sys

from metahpo_jax.cli import main

sys.exit(main())
