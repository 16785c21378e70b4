"""Competitors as processes that run in turn, round after round, so that what else happens on the machine strikes all of them alike."""

import json
import math
import os
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers" / "bin" / "python"  # made by `make peers`


@dataclass
class Competitor:
    """A process that repeats its work on demand."""

    name: str
    command: list[str]
    process: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    peak: float = 0.0  # bytes

    def start(self) -> bool:
        """Waits until it is warm; False when it cannot run."""
        if not Path(self.command[0]).exists():
            return False
        environment = {
            k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
        }
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd=ROOT, env=environment
        )
        for line in self.process.stdout:
            if line.startswith("READY"):
                facts = json.loads(line[5:])
                self.facts = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in facts.items()}
                return True
        self.process.wait()
        return False

    def repeat(self) -> None:
        """One repetition."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, peak = self.process.stdout.readline().split()
        self.seconds.append(float(seconds))
        self.peak = float(peak)

    def stop(self) -> None:
        """Ends the process."""
        self.process.stdin.close()
        self.process.wait()

    @property
    def rates(self) -> list[float]:
        """Work per second, round by round."""
        return [self.facts["work"] / s for s in self.seconds]


def race(entries: list[Competitor], rounds: int) -> dict[str, Competitor]:
    """Runs all in turn, `rounds` times; those that cannot run are missing from what is returned."""
    ready = []
    for entry in entries:
        print(f"  warming up {entry.name}", file=sys.stderr, flush=True)
        if entry.start():
            ready.append(entry)
        else:
            print(f"  {entry.name} cannot run here (`make peers`?)", file=sys.stderr)
    for i in range(rounds):
        print(f"  round {i + 1} of {rounds}", file=sys.stderr, flush=True)
        for entry in ready:
            entry.repeat()
    for entry in ready:
        entry.stop()
    return {entry.name: entry for entry in ready}


def ratio(race_: dict[str, Competitor], one: str, other: str) -> float | None:
    """Median over rounds of the ratio of rates; None where one is missing."""
    if one not in race_ or other not in race_:
        return None
    return statistics.median(a / b for a, b in zip(race_[one].rates, race_[other].rates, strict=True))


def summary(race_: dict[str, Competitor]) -> dict[str, Any]:
    """Medians and extremes, per competitor."""
    return {
        name: {
            "median": statistics.median(entry.rates), "least": min(entry.rates), "most": max(entry.rates), **entry.facts,
            "peak_megabytes": round(entry.peak / 1e6),
        }
        for name, entry in race_.items()
    }  # fmt: skip
