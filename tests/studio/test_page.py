"""The page without a browser: what its events answer."""

import asyncio
from typing import Any

import pytest
from random_folders import tiny_musicgen_backbone, tiny_stable_audio
from recordings import tone

from apa_lightning import MusicgenBackbone
from apa_lightning.editing.editor import AudioEditor
from apa_lightning.studio.jobs import DONE, Jobs

pytest.importorskip("gradio")
pytestmark = [
    pytest.mark.slow,  # gradio takes seconds to load
    pytest.mark.filterwarnings("ignore"),  # it leaves event loops open
]


def followed(page: Any, token: str) -> list[list[Any]]:
    """The updates of the page until the jobs of a browser are over."""

    async def collect() -> list[list[Any]]:
        return [update async for update in page.follow(token)]

    return asyncio.run(collect())


def values(page: Any, upload: Any, **fields: Any) -> dict[str, Any]:
    form = dict.fromkeys(page.fields) | {"recording": upload.id, "prompt": "a violin", "variations": 1, "seed": 0}
    return form | fields


def test_an_edit_is_shown_that_is_done_before_the_page_looks(page, sessions, tmp_path):
    session = sessions.open(None)
    upload = session.add_recording(tone(tmp_path / "song.wav"), "song.wav")
    job = page.studio.submit(session.token, values(page, upload, num_inference_steps="1", text_only=True))
    job.future.result(60)
    assert (job.state, job.finished) == (DONE, 2)
    status, cancel, history, compare, *_ = followed(page, session.token)[-1]
    [edit] = [one for one in session.edits() if one["kind"] == "edit"]
    assert "Done." in status and cancel["interactive"] is False
    assert history.value == edit["edit"]
    assert [take["key"] for take in compare] == ["A", "B", "X"]


@pytest.mark.parametrize(
    ("folder", "has", "lacks"),
    [
        (tiny_musicgen_backbone, "temperature", ("num_inference_steps", "scheduler", "strength", "ap_scale_end")),
        (tiny_stable_audio, "num_inference_steps", ("temperature", "top_k")),
    ],
    ids=["musicgen", "stable_audio"],
)
def test_another_backbone_has_its_own_knobs(folder, has, lacks, sessions, tmp_path, monkeypatch):
    from apa_lightning.studio.page import Page
    from apa_lightning.studio.service import Studio

    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
    backbone: Any = folder()
    encoder = str(backbone / "audio_encoder")
    if has == "temperature":
        backbone = MusicgenBackbone(str(backbone), window_seconds=1.28)
    editor = AudioEditor.from_pretrained(backbone, audio_encoder=encoder)
    jobs = Jobs(editor)
    try:
        page = Page(Studio(editor, sessions, jobs, {}))
        assert has in page.fields and not page.fields.keys() & set(lacks)
        assert "without a trained adapter" in page.studio.about
        session = sessions.open(None)
        upload = session.add_recording(tone(tmp_path / "song.wav", 2), "song.wav")
        moved = dict(zip(page.followers, (one["value"] for one in page.moved("timbre", 80, 60)), strict=True))
        region = {"start": 0.5, "end": 1.5}
        steps = {"num_inference_steps": "1"} if has == "num_inference_steps" else {}
        job = page.studio.submit(session.token, values(page, upload, region=region, **moved, **steps, text_only=True))
        job.future.result(120)
        assert (job.state, job.message, job.finished) == (DONE, "", 2)
    finally:
        jobs.close()


def test_a_target_of_another_task_is_taken_back(page):
    prompt, negative, target = page.texts("timbre", "violin", "piano")
    assert (prompt, negative) == ("a recording of a violin solo", "a recording of the piano solo")
    assert (target["label"], "value" in target) == ("Make it", False)
    assert page.texts("accompaniment", "violin", "")[2]["label"] == "Add"
    prompt, negative, target = page.texts("genre", "violin", "piano")
    assert (prompt, negative, target["value"]) == ("", "", None) and "jazz" in target["choices"]
    assert page.texts("genre", "polka", "")[0] == "polka style music"
