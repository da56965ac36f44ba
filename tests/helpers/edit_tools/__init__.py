"""Edits of a tiny model: by a call in Python, and by `predict` in this process with a manifest and what it leaves."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from recordings import tone

from apa_lightning import AudioEditor, InputError
from datamodules.edits import EditsDataModule

WINDOW = 64


IN_PAIRS = ("--data.manifest=m.csv", "--data.batch_size=2")


EDITS = [("violin", "a.wav"), ("flute", "a.wav"), ("harp", "b.flac"), ("organ", "c.wav"), ("cello", "b.flac")]


def fill(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setattr("sys.argv", ["apa_lightning"])
    tone(folder / "a.wav", 1.0, 440, 44_100)
    soundfile.write("b.flac", np.random.default_rng(0).normal(0, 0.05, (8_000, 2)), 16_000)
    tone(folder / "c.wav", 3.0, 220, 22_050)  # longer than the window
    write_manifest(EDITS)


def command(model: list[str], *arguments: str) -> list[str]:
    return [
        "predict",
        "--model=apa_lightning.AudioPromptModule",
        *model,
        "--data=datamodules.EditsDataModule",
        "--data.num_inference_steps=1",
        "--trainer.logger=false",
        "--trainer.accelerator=cpu",
        "--trainer.callbacks+=callbacks.PredictionWriter",
        *(arguments or ["--data.manifest=m.csv"]),
    ]


def write_manifest(edits, name: str = "m.csv", **more: list[str]) -> None:
    header = ["id", "audio", "prompt", *more]
    with open(name, "w", newline="") as file:
        rows = (
            [edit, audio, f"{edit}, solo", *cells] for (edit, audio), *cells in zip(edits, *more.values(), strict=True)
        )
        csv.writer(file).writerows([header, *rows])


def read(text: str | bytes, name: str = "m.csv", **settings: Any) -> list[Any]:
    """The edits that a manifest of this text plans."""
    Path(name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return EditsDataModule(manifest=name, **settings).read_edits()


def complaint(text: str | bytes, name: str = "m.csv", **settings: Any) -> str:
    """What is said of a manifest that cannot be used; nothing is left of it."""
    with pytest.raises(InputError) as error:
        read(text, name, **settings)
    assert not Path("edits").exists()
    return str(error.value)


def records(folder: str = "edits") -> list[dict]:
    return [json.loads(line) for line in Path(folder, "results.jsonl").read_text().splitlines()]


def audio_bytes(folder: str = "edits") -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.suffix in (".wav", ".flac")
    }


def refusal(predict, capsys, *arguments: str) -> str:
    """The one error of a command that must end with 2."""
    with pytest.raises(SystemExit) as exit_:
        predict(*arguments)
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("error: ") :]


def edit(editor: AudioEditor, audio: Any, **knobs: Any) -> Any:
    """An edit in two steps unless the knobs say more."""
    settings = {"prompt": "a recording of a violin solo", "num_inference_steps": 2, "progress": False} | knobs
    return editor.edit(audio, **settings)
