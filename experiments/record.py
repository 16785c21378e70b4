"""What every experiment writes: versions, seeds, seconds, figures and claims, each claim computed in that run."""

import argparse
import json
import math
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Claim:
    """One line of the verdict: `holds` is whether `value` meets `target`."""

    name: str
    value: float | None
    target: str
    holds: bool


def at_most(name: str, value: float, limit: float) -> Claim:
    """Holds where `value <= limit`."""
    return Claim(name, float(value), f"<= {limit:g}", bool(value <= limit))


def below(name: str, value: float, limit: float) -> Claim:
    """Holds where `value < limit`."""
    return Claim(name, float(value), f"< {limit:g}", bool(value < limit))


def at_least(name: str, value: float, limit: float) -> Claim:
    """Holds where `value >= limit`."""
    return Claim(name, float(value), f">= {limit:g}", bool(value >= limit))


def measured(targets: dict[str, float], name: str, value: float | None, *, most: bool = False) -> Claim:
    """Against its target, a least value or (`most`) a most one; what could not be measured does not hold."""
    target = targets[name]
    if value is None:
        return Claim(name, None, f"{'<=' if most else '>='} {target:g}", False)
    return at_most(name, value, target) if most else at_least(name, value, target)


def arguments(description: str, out: str) -> argparse.ArgumentParser:
    """The options that all experiments share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--quick", action="store_true", help="under 5 minutes: same protocol and targets, fewer seeds and tasks"
    )
    parser.add_argument(
        "--data", type=Path, default=None, help="folder of the data; without it, what comes with the package"
    )
    parser.add_argument("--out", type=Path, default=Path(out), help=f"JSON file to write (default: {out})")
    return parser


def one_thread_each() -> None:
    """Small programs gain nothing from threads inside operations; call this before JAX starts."""
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def interval(values: Any) -> list[float]:
    """Mean of `values [tasks]` with a 95 % bootstrap interval over tasks."""
    import numpy as np

    values = np.asarray(values)
    means = values[np.random.default_rng(0).integers(0, len(values), (2000, len(values)))].mean(1)
    return [float(values.mean()), *np.quantile(means, [0.025, 0.975]).tolist()]


def finite(figures: Any) -> Any:
    """The same figures, with null for what is not a number: JSON has no other."""
    if isinstance(figures, dict):
        return {name: finite(value) for name, value in figures.items()}
    if isinstance(figures, list):
        return [finite(value) for value in figures]
    return None if isinstance(figures, float) and not math.isfinite(figures) else figures


def write(path: Path, *, command: str, seeds: list[int], seconds: float, figures: dict[str, Any], claims: list[Claim],
          not_tested: list[str], versions: dict[str, str]) -> None:  # fmt: skip
    """Writes the record and prints its claims."""
    from metahpo_jax.files import write_atomically

    record = {
        "command": command,
        "versions": versions,
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "processor": platform.machine()},
        "seeds": seeds,
        "seconds": round(seconds, 1),
        "figures": finite(figures),
        "claims": finite([asdict(claim) for claim in claims]),
        "not_tested": not_tested,
    }
    write_atomically(path, (json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
    for claim in claims:
        value = "unknown" if claim.value is None else f"{claim.value:.5g}"
        print(f"{'holds ' if claim.holds else 'MISSED'}  {claim.name}: {value} {claim.target}")
    print(f"written to {path}")
