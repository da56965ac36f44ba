"""Rules of the structure: every module imports, imports run one way, rooms stay small."""

import ast
import importlib
import re
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("apa_lightning", "datamodules", "callbacks")
MODULES = sorted(
    path.relative_to(ROOT) for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.stem != "__main__"
)
#: Rooms of ``apa_lightning``, the foundation first: a module imports only from rooms before its own, and from its own.
ORDER = (
    "errors",
    "utils",
    "audio",
    "diffusion",
    "tokens",
    "conditioning",
    "adapters",
    "backbones",
    "editing",
    "edit_jobs",
    "metrics",
    "module",
    "evaluation",
    "pocket",
    "listening_test",
    "studio",
    "commands",
    "cli",
)
#: The composition root: the only place that knows all three packages.
COMPOSITION_ROOT = ("apa_lightning", "cli")
MOST_FILES = 12


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """Dotted names of the modules (and the names in them) that a file imports."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def module_of(path: Path) -> ModuleType | None:
    """The imported module; None for a page of the studio where its extra is not installed."""
    try:
        return importlib.import_module(name_of(path))
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "starlette") or path.parts[:2] != ("apa_lightning", "studio"):
            raise
        return None


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_imports(path):
    if module_of(path) is None:
        pytest.skip("needs the extra [studio]")


def test_only_the_composition_root_imports_all_three_packages():
    for path in MODULES:
        others = {name.split(".")[0] for name in imported(path)} & set(PACKAGES) - {path.parts[0]}
        if path.parts[0] == "apa_lightning" and path.parts[:2] != COMPOSITION_ROOT:
            assert not others, f"{path} imports {others}"
        if path.parts[0] == "datamodules":
            assert "callbacks" not in others, path


def test_imports_run_one_way():
    rank = {name: i for i, name in enumerate(ORDER)}
    for path in MODULES:
        if path.parts[0] != "apa_lightning" or (len(path.parts) == 2 and path.stem == "__init__"):
            continue
        here = rank[path.with_suffix("").parts[1]]
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "apa_lightning" and len(parts) > 1 and parts[1] in rank:
                assert rank[parts[1]] <= here, f"{path} imports {name}"


def private_names(tree: ast.AST) -> tuple[set[str], set[str]]:
    """Names with a leading underscore that a file defines, and that it uses as attributes; loops of the Trainer count too."""
    defined, used = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.Attribute):
            own = isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name) and node.value.id == "self"
            (defined if own else used).add(node.attr)
    used = {name for name in used if name == "fit_loop" or (name.startswith("_") and not name.startswith("__"))}
    return defined, used


def test_private_parts_of_lightning_are_used_in_one_file():
    trees = {path: ast.parse((ROOT / path).read_text()) for path in MODULES if path.stem != "lightning_compat"}
    ours = set().union(*(private_names(tree)[0] for tree in trees.values()))
    for path, tree in trees.items():
        if any(name.split(".")[0] == "lightning" for name in imported(path)):
            assert not private_names(tree)[1] - ours, path
        for cls in vars(module_of(path)).values() if module_of(path) else ():
            if not isinstance(cls, type) or cls.__module__ != name_of(path):
                continue
            bases = [base for base in cls.__mro__ if base.__module__.split(".")[0] == "lightning"]
            overridden = {name for name in vars(cls) for base in bases if name in vars(base)}
            assert not {name for name in overridden if name.startswith("_") and not name.startswith("__")} - {
                "_abc_impl"
            }, cls


def test_no_room_is_crowded():
    for package in (*PACKAGES, "tests"):
        for folder in [ROOT / package, *(ROOT / package).rglob("*/")]:
            files = [file for file in folder.glob("*.py") if file.stem not in ("__init__", "conftest")]
            assert len(files) <= MOST_FILES, f"{folder} holds {len(files)} files"


def test_every_module_has_a_docstring():
    for path in MODULES:
        assert ast.get_docstring(ast.parse((ROOT / path).read_text())) or path.stem == "__init__", path


def test_configs_name_classes_that_a_package_exports():
    named = {
        (file.relative_to(ROOT), *found.rsplit(".", 1))
        for file in (ROOT / "configs").rglob("*.yaml")
        for found in re.findall(r"class_path: *([\w.]+)", file.read_text())
        if found.split(".")[0] in PACKAGES
    }
    assert len(named) > 20
    for file, package, name in named:
        assert name in importlib.import_module(package).__all__, (file, package, name)


def test_no_test_imports_another():
    """What tests share is in tests/helpers; a basename may stand for one file only."""
    files = sorted((ROOT / "tests").rglob("*.py"))
    tests = [path.stem for path in files if path.stem.startswith("test_")]
    assert len(tests) == len(set(tests))
    for path in files:
        modules = {part for name in imported(path) for part in name.split(".")}
        assert not modules & {*tests, "conftest"}, path


def test_every_room_of_the_order_exists():
    for before, room in pairwise(ORDER):
        assert (ROOT / "apa_lightning" / room).is_dir() or (ROOT / "apa_lightning" / f"{room}.py").is_file(), (
            before,
            room,
        )
