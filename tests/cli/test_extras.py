"""A command whose extra is not installed names it; the extras of setup.cfg hold what the message promises."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from apa_lightning.cli.entry import EXTRAS
from apa_lightning.cli.overview import COMMANDS

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"sklearn": "scikit-learn"}


def requirements(section: str, key: str) -> set[str]:
    """Names of the distributions that an entry of setup.cfg lists."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = [line for line in config[section][key].splitlines() if line and not line.startswith("#")]
    return {re.match(r"[\w.-]+", line)[0] for line in lines}


def without(module: str) -> subprocess.CompletedProcess[str]:
    """The program where a module cannot be imported."""
    code = f"import sys; sys.modules[{module!r}] = None\nfrom apa_lightning.cli.entry import main; main()"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_a_missing_extra_is_named_in_one_line():
    ran = without("lightning")
    assert ran.returncode == 2
    assert ran.stderr == "error: this command needs lightning; install it with: pip install 'apa_lightning[train]'\n"


def imports_none(code: str, *modules: str) -> str:
    """Run ``code`` in a new process, check that it leaves ``modules`` unimported, and return what it prints."""
    check = f"\nimport sys; assert not {set(modules)!r} & set(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_help_of_the_program_imports_no_library():
    code = "import sys; sys.argv[1:] = ['--help']\nfrom apa_lightning.cli.entry import main; main()"
    assert re.findall(r"^  ([\w-]+)", imports_none(code, "torch", "lightning"), re.MULTILINE) == [*COMMANDS]


def test_the_editor_is_imported_without_the_libraries_that_load_weights():
    code = "from apa_lightning import AudioEditor"
    imports_none(code, "diffusers", "transformers", "timm", "scipy.signal", "torch._dynamo")


def test_any_other_missing_module_is_a_bug_and_keeps_its_traceback():
    ran = without("torch")
    assert ran.returncode == 1 and "Traceback" in ran.stderr


@pytest.mark.parametrize("module", EXTRAS)
def test_each_module_is_in_the_extra_that_is_named(module):
    name = DISTRIBUTIONS.get(module, module)
    assert name in requirements("options.extras_require", EXTRAS[module])
    assert name not in requirements("options", "install_requires")


def test_the_editor_edits_with_its_own_dependencies_alone():
    """What other libraries of the base installation import themselves cannot be absent."""
    absent = set(EXTRAS) - {"requests", "urllib3", "jinja2", "sklearn"}
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(absent)}))\n"
        "import torch; from apa_lightning import AudioEditor; assert 'sklearn' not in sys.modules\n"
        "editor = AudioEditor.from_pretrained()\n"
        "edit = editor.edit((0.1 * torch.randn(1, 16000), 16000), prompt='reggae style music', num_inference_steps=1)\n"
        "assert edit.waveform.shape[-1] == 16000"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert "Warning" not in ran.stderr  # diffusers' call of GPT-2 warns where nobody can act on it


@pytest.mark.slow
def test_training_needs_no_other_extra():
    """Torch itself depends on jinja2, so that it is never absent."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['sklearn', 'pretty_midi', 'selenium']))\n"
        "sys.argv[1:] = ['fit', '--config', 'configs/base.yaml', '--print_config']\n"
        "from apa_lightning.cli.entry import main; main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (ran.returncode, ran.stderr) == (0, "")
