"""The five extensions of docs/extending.md, from outside the packages: the page's own code is written to files and used."""

import csv
import re
import sys
from pathlib import Path

import pytest
from processes import Command

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r'```(?:python|yaml) title="([^"]+)"\n(.*?)```', re.DOTALL)
CALLBACKS = """
trainer:
  callbacks:
    - class_path: callbacks.LastCheckpoint
    - class_path: callbacks.AdapterExport
    - class_path: callbacks.AudioSamples
      init_args: {plan: {num_clips: 2, num_inference_steps: 2}}
    - class_path: callbacks.EditMetrics
      init_args: {clap: embedded, plan: {num_clips: 2, num_inference_steps: 2}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the package ``my_package`` of the page."""
    folder = tmp_path_factory.mktemp("extension")
    blocks = dict(BLOCK.findall((ROOT / "docs" / "extending.md").read_text()))
    assert sorted(blocks) == [
        "my_package/brightness.py",
        "my_package/evaluation.yaml",
        "my_package/log_mel_patches.py",
        "my_package/model.yaml",
        "my_package/muffled.py",
        "my_package/wave_backbone.py",
    ]
    for name, content in blocks.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    (folder / "my_package" / "__init__.py").touch()
    (folder / "callbacks.yaml").write_text(CALLBACKS)
    return folder


def run(place: Path, command: str, *flags: str, code: int = 0) -> str:
    """The output of a command of the program with the extension on the module path."""
    configs = ["--config", f"configs/{command}.yaml" if command != "fit" else "configs/base.yaml"]
    running = Command(
        [command, *configs, *flags], place / f"{command}.log", before=lambda: sys.path.insert(0, str(place))
    )
    assert running.wait() == code, running.output
    return running.output


@pytest.fixture(scope="module")
def adapter(place: Path) -> Path:
    """The adapter of a short training of the page's backbone and encoder."""
    run(
        place, "fit", "--config", "tests/small.yaml", "--config", f"{place}/my_package/model.yaml",
        "--config", f"{place}/callbacks.yaml", "--trainer.max_steps", "3", "--trainer.val_check_interval", "2",
        "--trainer.default_root_dir", f"{place}/runs",
    )  # fmt: skip
    return place / "runs" / "lightning_logs" / "version_0" / "adapter.safetensors"


def test_fit_trains_an_adapter_for_the_backbone(adapter: Path) -> None:
    assert adapter.is_file()
    assert list(adapter.parent.glob("samples/step-*/*-edited.wav"))


def test_its_encodings_can_be_cached(place: Path) -> None:
    shards = [f"--data.{split}_shards=datamodules/embedded/{split}-000000.tar" for split in ("train", "validation")]
    run(
        place, "fit", "--config", "configs/data/encoded.yaml", "--config", "tests/small.yaml",
        "--config", f"{place}/my_package/model.yaml", "--trainer.callbacks=[]", "--trainer.max_steps", "2",
        "--trainer.val_check_interval", "2", "--trainer.default_root_dir", f"{place}/cached", *shards,
        f"--data.cache={place}/encoded", "--data.windows_per_clip=1",
    )  # fmt: skip
    assert len(list((place / "encoded").rglob("*.safetensors"))) == 2


def test_predict_edits_with_it(place: Path, adapter: Path) -> None:
    import torch

    from apa_lightning.audio import load_audio, save_audio

    source = place / "songs" / "tone.wav"
    save_audio(source, 0.3 * torch.sin(torch.arange(64_000) * 0.1), 16_000)
    said = run(
        place, "predict", "--config", f"{place}/my_package/model.yaml", "--model.adapter", str(adapter),
        "--data.folder", str(source.parent), "--data.prompt", "a violin", "--data.num_inference_steps", "3",
        "--data.output", f"{place}/edits",
    )  # fmt: skip
    assert "made     1" in said
    edited, rate = load_audio(place / "edits" / "tone.wav")
    assert rate == 16_000 and edited.shape[1] == 64_000  # longer than the backbone's window of 2.56 s


def test_evaluate_uses_metric_task_and_system(place: Path, adapter: Path) -> None:
    run(
        place, "evaluate", "--config", f"{place}/my_package/model.yaml", "--config", f"{place}/my_package/evaluation.yaml",
        "--model.adapter", str(adapter), "--data.num_sources", "2", "--data.num_inference_steps", "2",
        "--data.output", f"{place}/evaluation",
    )  # fmt: skip
    with open(place / "evaluation" / "results.csv", encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["task"], row["system"]) for row in rows} == {("brighter", "adapter"), ("brighter", "muffled")}
    assert {row["guidance_scale"] for row in rows if row["system"] == "adapter"} == {"3.0"}  # the backbone's default
    muffled = [row for row in rows if row["system"] == "muffled"]
    assert all(float(row["brightness"]) > 0.1 for row in muffled)
    assert all(float(row["chroma"]) > 0.5 for row in muffled)


def test_another_backbones_adapter_is_refused_by_name(place: Path) -> None:
    said = run(
        place, "predict", "--config", f"{place}/my_package/model.yaml", "--data.folder", str(place / "songs"),
        "--data.prompt", "a violin", "--data.output", f"{place}/other", code=2,
    )  # fmt: skip
    assert "was trained on the embedded backbone, whose weights differ" in said
