"""Reading a file or importing the package never runs foreign code and never talks to anyone."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "metahpo_jax").rglob("*.py"))

# Not to be imported, nor anything below them: they unpickle, run code, open connections, or are another framework.
BANNED_IMPORTS = [
    *("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "shelve", "marshal", "jsonpickle"),
    *("joblib.load", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load"),
    *("socket", "urllib.request", "http.client", "ftplib", "requests", "httpx", "aiohttp"),
    *("torch", "tensorflow"),
]
BANNED_BUILTINS = {"eval", "exec", "compile", "__import__"}
BANNED_CALLS = {
    "os.system",
    "os.popen",
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "pd.read_pickle",
    "pandas.read_pickle",
}


def offences(tree: ast.Module) -> Iterator[str]:
    """Yields one line for each import or call that the package does without."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in BANNED_BUILTINS | BANNED_CALLS:
                yield f"line {node.lineno}: call of {called}"
            for keyword in node.keywords:
                allowed = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                if keyword.arg in ("allow_pickle", "shell") and not allowed:
                    yield f"line {node.lineno}: {keyword.arg} is not the constant False"
        for name in names:
            if any(f"{name}.".startswith(f"{banned}.") for banned in BANNED_IMPORTS):
                yield f"line {getattr(node, 'lineno', 0)}: import of {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_reads_no_pickle_runs_no_text_and_opens_no_connection(path: Path) -> None:
    assert not list(offences(ast.parse(path.read_text(encoding="utf-8"))))


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import pickle", 1),
        ("def f():\n    from pickle import loads", 1),
        ("from joblib import load", 1),
        ("from joblib import Parallel", 0),
        ("import urllib.request", 1),
        ("import urllib.parse", 0),
        ("eval('1')", 1),
        ("model.eval()", 0),
        ("jax.jit(f).lower(x).compile()", 0),
        ("np.load(path, allow_pickle=True)", 1),
        ("np.load(path, allow_pickle=flag)", 1),
        ("np.load(path, allow_pickle=False)", 0),
        ("import torch.nn", 1),
    ],
)
def test_the_reader_of_offences_sees_them(source: str, count: int) -> None:
    assert len(list(offences(ast.parse(source)))) == count


WATCH = """
import json, sys

seen = []
WATCHED = {
    "socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname",
    "urllib.Request", "os.system", "pickle.find_class",
}
sys.addaudithook(lambda event, args: seen.append(event) if event in WATCHED else None)
"""

TINY_TUNE = """
from metahpo_jax import Float, Space, minimize

minimize(lambda config: (config["x"] - 0.3) ** 2, Space(x=Float(0.0, 1.0)), trials=3)
"""

UNPICKLE_AND_CALL = """
import pickle, socket, collections

pickle.loads(pickle.dumps(collections.OrderedDict()))
with socket.socket() as door:
    door.bind(("127.0.0.1", 0))
"""


def watched_events(program: str) -> list[str]:
    """Runs `program` in a process whose audit hook notes connections and unpickling; the notes in order."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", f"{WATCH}\n{program}\nprint(json.dumps(seen))"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_and_tuning_opens_no_connection_and_unpickles_nothing() -> None:
    assert watched_events(TINY_TUNE) == []


def test_the_audit_hook_notes_connections_and_unpickling() -> None:
    assert set(watched_events(UNPICKLE_AND_CALL)) == {"pickle.find_class", "socket.bind"}
