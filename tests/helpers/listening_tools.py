"""A small evaluation to build a listening test from, and answers of listeners."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from apa_lightning.evaluation.rows import ABOUT, KNOBS
from apa_lightning.listening_test.key import HIDDEN_SOURCE, Key
from apa_lightning.listening_test.questions import QUESTIONS

NAMES = [question.name for question in QUESTIONS]
TASKS = {"timbre": "a recording of a violin solo", "genre": "</script> <b>reggae</b> style music"}
SYSTEMS = ("no_op", "adapter", "text_only")


def write_evaluation(folder: Path, sources: int = 3) -> Path:
    """An evaluation's folder with half a second of tone per edit."""
    rows = []
    for task, prompt in TASKS.items():
        for number in range(sources):
            name = f"piano_{number}-to-target"
            for pitch, system in enumerate(SYSTEMS, 1):
                output = f"audio/{task}/{system}/{name}.wav"
                (folder / output).parent.mkdir(parents=True, exist_ok=True)
                tone = 0.2 * np.sin(2 * np.pi * 220 * (pitch + number / 10) * np.arange(8000) / 16000)
                soundfile.write(folder / output, tone, 16000)
                rows.append(
                    {
                        "id": name,
                        "task": task,
                        "system": system,
                        "source": f"piano_{number}",
                        "prompt": prompt,
                        "audio": f"audio/{task}/no_op/{name}.wav",
                        "output": output,
                    }
                )
    write_rows(folder, rows)
    return folder


def write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    """Write ``results.csv``; columns that the listening test does not read stay empty."""
    with open(folder / "results.csv", "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, [*ABOUT, *KNOBS, "clap"], restval="")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "results.csv", encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def page_data(test: Path) -> dict[str, Any]:
    page = (test / "page" / "index.html").read_text()
    return json.loads(page.split('id="test">')[1].split("</script>")[0])


def answer(test: Path, listener: str, rate=lambda item, name: None, **changes: Any) -> Path:
    """A file as the page makes it, of a listener who listens unless ``rate`` says something else."""
    key = Key.load(test / "key.json")
    careful = {"adapter": (4, 4, 4), "text_only": (5, 1, 2), HIDDEN_SOURCE: (1, 5, 3)}
    ratings = {
        token: {name: rate(item, name) or value for name, value in zip(NAMES, careful[item.system], strict=True)}
        for token, item in key.items.items()
    }
    content = {"build": key.build, "listener": listener, "saved": "2026-01-01T10:00:00.000Z", "ratings": ratings}
    file = test / "answers" / f"{listener}{changes.pop('name', '')}.json"
    file.write_text(json.dumps(content | changes))
    return file
