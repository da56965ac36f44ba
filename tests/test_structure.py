"""Imports run one way, and every module imports."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("apa_lightning", "datamodules", "callbacks")
MODULES = sorted(
    path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py") if path.stem != "__main__"
)
#: The plan's order; a module may import from rows above it, and from its own.
ORDER = [
    {"errors", "files", "caption_templates", "statistics", "messages"},
    {
        "audio",
        "pooling",
        "diffusion",
        "random_draws",
        "text_streams",
        "sources",
        "checkpoints",
        "griffin_lim",
        "random_backbone",
    },
    {"audio_encoder", "adapter", "conditioning", "edit_request", "prompt_encoder"},
    {"backbone"},
    {"clap", "metrics", "sampling", "edit_source", "editing", "sizes", "adapter_files"},
    {"module", "pocket"},
    {"trainer", "evaluation", "listening_test"},
    {"cli"},
]


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_imports(path):
    importlib.import_module(name_of(path))


def test_the_package_imports_neither_data_nor_callbacks():
    for path in MODULES:
        if path.parts[0] == "apa_lightning":
            assert not {name for name in imported(path) if name.split(".")[0] in ("datamodules", "callbacks")}, path


def test_imports_run_one_way():
    rank = {name: i for i, row in enumerate(ORDER) for name in row}
    for path in MODULES:
        if path.parts[0] != "apa_lightning" or path.stem == "__init__":
            continue
        here = rank[path.with_suffix("").parts[1]]  # a module, or a room of its own such as pocket
        for name in imported(path):
            parts = name.split(".")
            if parts[0] == "apa_lightning" and len(parts) > 1 and parts[1] in rank:
                assert rank[parts[1]] <= here, f"{path} imports {name}"


def test_the_editor_needs_no_lightning():
    code = "import sys; from apa_lightning import AudioEditor, EditRequest; assert not {'lightning', 'pytorch_lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
