"""Which devices train: an accelerator as it is, or several host devices on a CPU, one per core."""

import os
import warnings
from functools import cache

from metahpo_jax.errors import ConfigError

ONE_THREAD = (
    "--xla_cpu_multi_thread_eigen=false"  # threads inside an operation gain nothing where devices split the work
)


def cores() -> int:
    """Cores that this process may run on, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def configure(*, devices: int | None = None) -> None:
    """Splits the CPU into `devices` host devices (default: one per core), each of which trains a share of every population.

    Call it before anything has run on JAX, best before `import jax`; the command line and the experiments do. It changes nothing for
    accelerators.

    Raises:
      ConfigError: when `devices` is below 1, or when JAX has already started with another number.
    """
    count = cores() if devices is None else devices
    if count < 1:
        raise ConfigError(f"configure: devices must be at least 1, got {count}.")
    flags = os.environ.get("XLA_FLAGS", "")
    if count > 1 and ONE_THREAD not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {ONE_THREAD}".strip()
    import jax

    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # raised once a backend runs
        if jax.device_count("cpu") != count:
            raise ConfigError(
                f"configure: JAX has already started with {jax.device_count('cpu')} CPU device(s), so it is too late for {count}; "
                "call metahpo_jax.configure before anything else that uses JAX."
            ) from None


@cache
def training_devices() -> tuple:
    """The devices that populations are spread over; says once when a CPU of several cores counts as one device."""
    import jax

    found = tuple(jax.local_devices())
    if found[0].platform == "cpu" and len(found) == 1 and cores() > 1:
        warnings.warn(
            f"populations are trained on one of {cores()} cores: call metahpo_jax.configure() before using JAX to train on all.",
            stacklevel=3,
        )
    return found


@cache
def memory_per_device() -> int:
    """Bytes that one device may use for a chunk: half of an accelerator's, an equal share of half of the host's."""
    devices = training_devices()
    stats = devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(stats["bytes_limit"]) // 2
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 4 << 30
    return host // 2 // len(devices)
