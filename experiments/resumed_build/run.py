"""A build that is killed at random moments and started again ends with the content of one that never was.

python -m experiments.resumed_build.run         # about 15 minutes on 2 cores
python -m experiments.resumed_build.run --quick
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.record import arguments, at_most, one_thread_each, write

one_thread_each()

import numpy as np

from experiments.resumed_build import config
from metahpo_jax.evaluation.jobs import versions
from metahpo_jax.metadata import load_metadataset


def start(out: Path, cache: Path) -> subprocess.Popen:
    """`metahpo build`, in a process group of its own; compiled programs are kept, so that a restart soon trains again."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, "-m", "metahpo_jax", "build", *config.BUILD, "--out", str(out)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )


def content(folder: Path) -> str:
    """The content hash of a finished build."""
    return load_metadataset(folder, strict=False).content_hash


def main() -> None:
    """Builds once undisturbed, once killed again and again, and compares."""
    options = arguments(__doc__ or "", "experiments/resumed_build/results.json").parse_args()
    began, kills = time.perf_counter(), config.QUICK_KILLS if options.quick else config.KILLS
    rng, sizes = np.random.default_rng(config.SEED), []
    with tempfile.TemporaryDirectory() as folder:
        whole, killed, cache = (Path(folder) / name for name in ("whole", "killed", "cache"))
        for _ in range(2):  # the first compiles; the second tells how long a build takes that only trains
            for path in (whole, Path(f"{whole}.log")):
                subprocess.run(["rm", "-rf", str(path)], check=True)
            undisturbed = time.perf_counter()
            if start(whole, cache).wait() != 0:
                raise SystemExit("the undisturbed build failed; run the same `metahpo build` by hand to see why")
            undisturbed = time.perf_counter() - undisturbed
        log = Path(f"{killed}.log")
        hashes, alive = [content(whole)], False
        while len(sizes) < kills:
            process = start(killed, cache)
            # From before the log is opened to near the end of what is left of a build.
            time.sleep(float(rng.uniform(0.1, 1.0)) * undisturbed)
            alive = process.poll() is None
            if not alive:  # it had finished before it could be killed: compare, and begin another one
                hashes.append(content(killed))
                subprocess.run(["rm", "-rf", str(killed), str(log)], check=True)
                continue
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            sizes.append(log.stat().st_size if log.exists() else 0)
            print(f"kill {len(sizes)} of {kills}: {sizes[-1]:,} bytes of finished work", file=sys.stderr, flush=True)
        if start(killed, cache).wait() != 0:
            raise SystemExit("the killed build could not be resumed; run the same `metahpo build` by hand to see why")
        hashes.append(content(killed))
    write(
        options.out, command="python -m experiments.resumed_build.run" + (" --quick" if options.quick else ""), seeds=[config.SEED],
        seconds=time.perf_counter() - began,
        figures={
            "kills": kills, "bytes_of_finished_work_after_each": sizes, "content_hashes": hashes,
            "seconds_undisturbed": round(undisturbed, 1),
        },
        claims=[at_most("different content hashes", len(set(hashes)), 1)],
        not_tested=[f"kills {kills + 1} to {config.KILLS}"] if options.quick else [], versions=versions(),
    )  # fmt: skip


if __name__ == "__main__":
    main()
