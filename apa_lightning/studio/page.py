"""The page: gradio's components, and what happens when they are used."""

import asyncio
import html
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError
from apa_lightning.studio import form, results
from apa_lightning.studio.pictures import draw
from apa_lightning.studio.service import Studio
from apa_lightning.studio.sessions import Upload

STATIC = Path(__file__).parent / "static"
GREEK = {"alpha": "α", "omega": "ω", "lambda": "λ", "lambda_text": "λ text", "lambda_audio": "λ audio"}
#: What is shown in an empty field of a knob without a default.
HINTS = {"extend": "[before, after] in seconds", "guidance_interval": "[start, end], 0 to 1"}
START = "Drop a recording, say what it shall become, and press Edit."
#: Seconds between two looks at the progress.
PAUSE = 0.4
NO_RESULT: tuple[Any, ...] = ([], *[None] * 5)
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden"}


class Page:
    """The components of the page and its events; :attr:`blocks` is what gradio serves."""

    def __init__(self, studio: Studio):
        self.studio = studio
        self.defaults = studio.editor.edit_defaults
        self.presets = form.presets()
        self.fields: dict[str, Any] = {}
        with gr.Blocks(
            title="apa_lightning studio", analytics_enabled=False, delete_cache=(3600, 86400)
        ) as self.blocks:
            gr.HTML(f"<h1>apa_lightning studio</h1><p>{html.escape(studio.about)}</p>")
            self.token = gr.BrowserState("", storage_key="apa_studio_token", secret="apa_lightning")
            self.draft = gr.BrowserState({}, storage_key="apa_studio_draft", secret="apa_lightning")
            with gr.Row(equal_height=False):
                with gr.Column(scale=1, min_width=320):
                    self._add_form()
                with gr.Column(scale=1, min_width=320):
                    self._add_result()
            self._add_events()

    def _add_form(self) -> None:
        add, limits = self.fields.__setitem__, self.studio.sessions
        self.audio = gr.Audio(
            label=f"Recording: up to {limits.max_seconds:g} s and {limits.max_megabytes} MB",
            sources=["upload", "microphone"],
            type="filepath",
            editable=False,
            buttons=[],
            elem_id="recording",
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
        )
        add("recording", gr.Textbox(visible=False))
        add("region", _own("region", value=None, image="", seconds=0, elem_id="region"))
        tasks = dict.fromkeys((*self.presets, *self.defaults.tasks))
        add("task", gr.Radio([(name.capitalize(), name) for name in tasks], value="timbre", label="Task"))
        with gr.Row():
            targets = self.presets["timbre"]["targets"]
            add("source", gr.Textbox(label="The recording is", placeholder="piano", min_width=120))
            self.target = gr.Dropdown(
                targets, value=None, label=form.target_label("timbre"), allow_custom_value=True, min_width=120
            )
            add("target", self.target)
        add(
            "prompt",
            gr.Textbox(label="Prompt: what it shall be", placeholder="a recording of a violin solo", max_length=2000),
        )
        add("negative_prompt", gr.Textbox(label="Negative prompt: what it shall not be", max_length=2000))
        slider: dict[str, Any] = {"minimum": 0, "maximum": 100, "step": 1, "value": form.MIDDLE, "buttons": []}
        about = "50 suits the model. More keeps more of the recording; 0 is the text alone."
        add("keep", gr.Slider(label="Keep melody", info=about, **slider))
        about = "50 suits the model. More follows the prompts more closely."
        add("text", gr.Slider(label="Text strength", info=about, **slider))
        with gr.Row():
            add("seed", gr.Number(0, label="Seed: another one, another result", precision=0, min_width=100))
            add(
                "variations",
                gr.Slider(1, form.MOST_VARIATIONS, 1, step=1, label="Variations", min_width=140, buttons=[]),
            )
        add("text_only", gr.Checkbox(True, label="Text-only version too, to compare"))
        with gr.Accordion("Expert: the paper's knobs", open=False):
            gr.Markdown("Empty fields have the backbone's own values. The sliders fill in α, ω and λ.")
            with gr.Row():
                for name in form.expert_knobs(self.defaults.sampling):
                    add(name, self._knob(name))

    def _knob(self, name: str) -> Any:
        symbol = GREEK.get(EditSettings.symbol(name), "")
        label = f"{symbol} · {name}" if symbol else name
        if name == "match_level":
            return gr.Checkbox(True, label="match_level", min_width=180)
        default = self.defaults.of("timbre").get(name, getattr(EditSettings(), name))
        hint = HINTS.get(name, "") if default is None else str(default)
        return gr.Textbox(label=label, placeholder=hint, max_lines=1, max_length=500, min_width=180)

    def _add_result(self) -> None:
        with gr.Row():
            self.run = gr.Button("Edit", variant="primary", elem_id="edit", min_width=120)
            self.cancel = gr.Button("Cancel", interactive=False, elem_id="cancel", min_width=120)
        self.status = gr.HTML(results.note(START), elem_id="status")
        self.compare = _own("compare", value=[], elem_id="compare")
        with gr.Row():
            self.downloads = [
                gr.DownloadButton(
                    f"Download {kind}", interactive=False, min_width=120, elem_id=f"download-{kind.lower()}"
                )
                for kind in ("WAV", "FLAC")
            ]
        self.history = gr.Radio([], label="History", elem_id="history", info="Edits of this browser, the newest first.")
        self.reuse = gr.Button("Use these settings again", elem_id="reuse")
        with gr.Accordion("All settings", open=False):
            self.settings = gr.JSON(show_label=False)
        with gr.Accordion("Copy as command line or Python", open=False):
            self.command = gr.Textbox(label="Command line", buttons=["copy"], lines=6, interactive=False)
            self.python = gr.Textbox(label="Python", buttons=["copy"], lines=8, interactive=False)
        self.result = [self.compare, *self.downloads, self.settings, self.command, self.python]

    @property
    def followers(self) -> list[str]:
        """The fields that the sliders move."""
        return [name for name in form.MOVED if name in self.fields]

    def _add_events(self) -> None:
        fields, inputs = self.fields, list(self.fields.values())
        followed = [self.status, self.cancel, self.history, *self.result]
        shown = {"fn": self.shown, "inputs": [self.token, self.history], "outputs": self.result, **QUIET}
        watch: dict[str, Any] = {"outputs": followed, "concurrency_limit": None, "show_progress": "hidden"}
        opened = self.blocks.load(
            self.opened, [self.token, self.draft], [self.token, self.audio, *inputs, self.history], **QUIET
        )
        opened.then(**shown).then(self.follow, self.token, **watch).then(**shown)
        accepted = [fields["recording"], self.audio, fields["region"], self.status]
        self.audio.input(
            self.accepted, [self.token, self.audio], accepted, concurrency_limit=None, show_progress="hidden"
        )
        self.run.click(self.edit, [self.token, *inputs], **watch).then(**shown)
        self.cancel.click(lambda token: self.studio.jobs.cancel(token), self.token, **QUIET)
        self.history.input(**shown)
        self.reuse.click(self.reused, [self.token, self.history], [self.audio, *inputs, self.status], **QUIET)
        texts = [fields[name] for name in ("task", "target", "source")]
        for field in texts:
            field.input(self.texts, texts, [fields["prompt"], fields["negative_prompt"], self.target], **QUIET)
        moving = [fields[name] for name in ("task", "keep", "text")]
        for field in moving:
            field.input(
                self.moved, moving, [fields[name] for name in self.followers], trigger_mode="always_last", **QUIET
            )
        names = list(fields)
        gr.on(
            [field.change for field in inputs],
            fn=None,
            js=f"(...values) => Object.fromEntries({names}.map((name, i) => [name, values[i]]))",
            inputs=inputs,
            outputs=self.draft,
            **QUIET,
        )

    def opened(self, token: object, draft: object) -> list[Any]:
        """The page as this browser left it."""
        session = self.studio.sessions.open(token)
        choices = results.history(session)
        chosen = gr.Radio(choices=choices, value=choices[0][1] if choices else None)
        return [session.token, *self._filled(session.token, draft if isinstance(draft, dict) else {}), chosen]

    def _filled(self, token: str, values: Mapping[str, Any]) -> list[Any]:
        """Updates of the recording and all fields; those that ``values`` lacks stay."""
        session = self.studio.sessions.open(token)
        upload = session.recording(values.get("recording"))
        updates = {name: gr.update(value=value) for name, value in values.items() if name in self.fields}
        updates["recording"] = gr.update(value="" if upload is None else upload.id)
        updates["region"] = self._region(token, upload, values.get("region"))
        if (task := values.get("task")) in self.presets:
            label, choices = form.target_label(str(task)), self.presets[task]["targets"]
            updates["target"] = gr.update(value=values.get("target"), choices=choices, label=label)
        audio = None if upload is None else str(session.file_of(upload))
        return [audio, *(updates.get(name, gr.skip()) for name in self.fields)]

    def _region(self, token: str, upload: Upload | None, region: object = None) -> Any:
        if upload is None:
            return gr.update(value=None, image="", seconds=0)
        session = self.studio.sessions.open(token)
        file = session.file_of(upload)
        picture = draw(file, file.with_suffix(".png"))
        return gr.update(value=region, image=results.file_url(picture), seconds=round(upload.seconds, 2))

    def accepted(self, token: str, path: str | None) -> list[Any]:
        """Check an upload and show it."""
        if path is None:
            return ["", None, self._region(token, None), results.note(START)]
        try:
            upload = self.studio.accept(token, path)
        except (InputError, OSError) as error:
            return ["", None, self._region(token, None), results.problem(error)]
        about = f"{upload.name}: {upload.seconds:.1f} s at {upload.sample_rate} Hz."
        return [upload.id, gr.skip(), self._region(token, upload), results.note(about)]

    def texts(self, task: str, target: str | None, source: str | None) -> list[Any]:
        """Prompts and targets of a task preset. A target of another task is taken back with its prompts."""
        targets = self.presets.get(task, {}).get("targets", [])
        listed: dict[str, Any] = {"choices": targets, "label": form.target_label(task)}
        if not target:
            return [gr.skip(), gr.skip(), gr.update(**listed)]
        if target not in targets and any(target in preset["targets"] for preset in self.presets.values()):
            return ["", "", gr.update(value=None, **listed)]
        return [*form.texts_of(self.defaults, task, target, (source or "").strip()), gr.update(**listed)]

    def moved(self, task: str, keep: float, text: float) -> list[Any]:
        """The knobs where the sliders stand; a field that is left out names the backbone's value."""
        values, stored = form.moved(self.defaults, task, keep, text), self.defaults.of(task)
        return [
            gr.update(
                value="" if values[name] is None else json.dumps(values[name]),
                placeholder=HINTS.get(name, "") if stored[name] is None else str(stored[name]),
            )
            for name in self.followers
        ]

    async def edit(self, token: str, *values: Any) -> AsyncIterator[list[Any]]:
        """Queue the edits of the form and follow them."""
        try:
            await asyncio.to_thread(self.studio.submit, token, dict(zip(self.fields, values, strict=True)))
        except (InputError, OSError) as error:
            yield [results.problem(error), *[gr.skip()] * (2 + len(self.result))]
            return
        async for update in self.follow(token):
            yield update

    async def follow(self, token: str) -> AsyncIterator[list[Any]]:
        """Show the progress of this browser's jobs until they are over, and their edits as they come."""
        jobs, session = self.studio.jobs, self.studio.sessions.open(token)
        seen: tuple[int, int] | None = None
        chosen = None  # the job whose edit is shown
        yield [gr.skip()] * (3 + len(self.result))  # gradio empties the outputs of a generator without a result
        while (job := jobs.of(session.token)) is not None:
            is_open = job.is_open  # before the rest: what is over does not change any more
            now, choices, result = (job.number, job.finished), gr.skip(), [gr.skip()] * len(self.result)
            if now != seen and job.finished:
                found = await asyncio.to_thread(results.history, session)
                choices = gr.Radio(choices=found)
                if job.number != chosen and found:
                    chosen = job.number
                    choices = gr.Radio(choices=found, value=found[0][1])
                    result = list(await asyncio.to_thread(self.shown, token, found[0][1]))
            seen = now
            yield [results.status(job, jobs.ahead(job)), gr.update(interactive=is_open), choices, *result]
            if not is_open:
                return
            await asyncio.sleep(PAUSE)

    def shown(self, token: str, edit_id: str | None) -> tuple[Any, ...]:
        """A finished edit next to its source."""
        session = self.studio.sessions.open(token)
        record = session.edit(edit_id)
        if record is None:
            return NO_RESULT
        settings, parts = record["settings"], self.studio.parts
        files = (str(session.audio_of(record, suffix)) for suffix in ("wav", "flac"))
        return (
            results.compared(session, record),
            *(gr.DownloadButton(value=file, interactive=True) for file in files),
            settings,
            form.command_line(record["name"], settings, parts),
            form.python_code(record["name"], settings, parts),
        )

    def reused(self, token: str, edit_id: str | None) -> list[Any]:
        """The form as it was for a finished edit."""
        record = self.studio.sessions.open(token).edit(edit_id)
        if record is None:
            return [gr.skip()] * (1 + len(self.fields)) + [results.problem("Choose an edit of the history first.")]
        settings = record["settings"]
        values = {name: settings.get(name) for name in self.fields if name in settings}
        region = settings.get("region")
        values |= {name: json.dumps(values[name]) for name in form.WRITTEN if values.get(name) is not None}
        values |= {"recording": record["recording"], "variations": 1}
        values |= {"region": {"start": region[0], "end": region[1]} if region else None}
        return [*self._filled(token, values), results.note("The settings of that edit are in the form.")]


def _own(name: str, **props: Any) -> Any:
    """A component of the page's own: a template and its script."""
    template, script = ((STATIC / f"{name}.{suffix}").read_text(encoding="utf-8") for suffix in ("html", "js"))
    return gr.HTML(html_template=template, js_on_load=script, apply_default_css=False, **props)
