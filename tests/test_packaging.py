"""The package as others meet it: its front door, its pins, the built wheel, and the examples in its pages."""

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import import_module
from pathlib import Path
from shutil import copy2, copytree, ignore_patterns
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import metahpo_jax

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXPORTS = [name for name in metahpo_jax.__all__ if name != "__version__"]
FRAMEWORKS = {"tensorflow", "torch"}
HEAVY = FRAMEWORKS | {"flax", "distrax", "optax", "optimistix", "matplotlib", "pyarrow", "sklearn", "rich", "tyro"}
INFO = f"metahpo_jax-{metahpo_jax.__version__}.dist-info"
PYTHONS = ["3.11", "3.12", "3.13"]


def modules_after(program: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `program`."""
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


def test_import_loads_nothing_heavy() -> None:
    assert not modules_after("import metahpo_jax") & HEAVY


def test_no_export_loads_another_framework_or_a_slow_package() -> None:
    everything = "import metahpo_jax\nfor name in metahpo_jax.__all__: getattr(metahpo_jax, name)"
    assert not modules_after(everything) & (FRAMEWORKS | {"distrax", "matplotlib", "sklearn"})


@pytest.mark.parametrize("name", EXPORTS)
def test_exported_name_is_what_its_module_calls_so(name: str) -> None:
    value = getattr(metahpo_jax, name)
    home = import_module(metahpo_jax._EXPORTS[name])
    assert value is getattr(home, name)
    assert not isinstance(value, ModuleType), f"{name} is a module: a submodule of {home.__name__} hides the function"
    assert value.__doc__, f"{name} has no docstring"
    assert name in dir(metahpo_jax)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "metahpo_jax/__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    lines = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    shown = {alias.asname: line.module for line in lines for alias in line.names}
    assert shown == metahpo_jax._EXPORTS


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        metahpo_jax.no_such_name  # noqa: B018


def test_version_is_the_one_of_the_distribution_and_the_changelog() -> None:
    assert metahpo_jax.__version__ == PROJECT["project"]["version"]
    assert f"## [{metahpo_jax.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def pins(file: str) -> list[Requirement]:
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-datasets.txt"])
def test_every_pin_is_a_name_and_a_version(file: str) -> None:
    for pin in pins(file):
        assert re.fullmatch(r"==[\w.]+", str(pin.specifier)) and pin.url is None, pin
    text = (ROOT / file).read_text(encoding="utf-8")
    assert "://" not in text and not re.search(r"^\s*-", text, re.MULTILINE), "names and versions only"


@pytest.mark.parametrize("python", PYTHONS)
def test_pins_cover_every_requirement_on_each_python(python: str) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": "linux"}
    here |= {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
    pinned: dict[str, str] = {}
    for pin in pins("requirements.txt"):
        if pin.marker is None or pin.marker.evaluate(here):
            name = canonicalize_name(pin.name)
            assert name not in pinned, f"{name} is pinned twice for Python {python}"
            pinned[name] = str(pin.specifier).removeprefix("==")
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [Requirement(text) for text in [*PROJECT["project"]["dependencies"], *extras["interop"], *extras["dev"]]]
    for requirement in wanted:
        name = canonicalize_name(requirement.name)
        if name != "metahpo-jax":
            assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement} on Python {python}"
    assert "tfp-nightly" in pinned, "distrax works with some nightlies only"
    assert not {"torch", "tensorflow", "jaxopt"} & set(pinned)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel built from a copy of the tree, without asking any package index."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    copytree(ROOT / "metahpo_jax", tree / "metahpo_jax", ignore=ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        copy2(ROOT / file, tree / file)
    build = f"from setuptools import build_meta\nbuild_meta.build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tree, capture_output=True, check=True)
    return zipfile.Path(next(out.glob("*.whl")))


def test_wheel_holds_the_whole_package(wheel: zipfile.Path) -> None:
    shipped = set(wheel.root.namelist())
    present = {str(path.relative_to(ROOT)) for path in (ROOT / "metahpo_jax").rglob("*") if path.is_file()}
    present = {path for path in present if "__pycache__" not in path}
    assert present <= shipped
    assert {path.split("/")[0] for path in shipped} == {"metahpo_jax", INFO}


def test_wheel_installs_the_command_and_says_its_licence(wheel: zipfile.Path) -> None:
    info = wheel / INFO
    assert "metahpo = metahpo_jax.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")
    assert "License-Expression: Apache-2.0" in (info / "METADATA").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_python_examples_of_a_page_run(page: str, tmp_path: Path) -> None:
    """Runs the fenced python blocks of a page one after another, as a reader would, in an empty directory."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert blocks, f"{page} has no python example"
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", sorted((ROOT / "notebooks").glob("*.py")), ids=lambda path: path.name)
def test_notebook_and_its_source_say_the_same(source: Path) -> None:
    import jupytext

    notebook = source.with_suffix(".ipynb")
    cells = [[(cell.cell_type, cell.source) for cell in jupytext.read(path).cells] for path in (source, notebook)]
    assert cells[0] == cells[1], f"{notebook.name} is not what {source.name} makes: run `make notebooks`"
