"""The command ``publish``: an adapter as a folder in the Hugging Face hub's layout, and its upload."""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch

import apa_lightning
from apa_lightning.adapters.audio_prompt import FORMAT, HEADER, digest_of
from apa_lightning.adapters.files import AdapterFile, download
from apa_lightning.audio import load_audio, save_audio
from apa_lightning.commands.model_card import SYSTEM, About, Evaluated, model_card, training_facts
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.pretrained import ADAPTER_FILE, EMBEDDED, HUB_ID, first_line, resolve_source

CARD, CONFIG, EXAMPLES, PLOTS, HISTORY = "README.md", "config.json", "examples", "plots", "history.jsonl"
#: Systems whose sound is next to that of the adapter, with the labels of the card.
COMPARED = {"source": "source", SYSTEM: "edit", "text_only": "the same prompt without the recording"}
MOST_SECONDS = 30.0
_DATASET = re.compile(r"[\w.-]+(/[\w.-]+)?")


def publish(
    adapter: str,
    out: Path = Path("published"),
    evaluation: Path | None = None,
    run: Path | None = None,
    license: str | None = None,
    base_model: str | None = None,
    datasets: list[str] | None = None,
    name: str | None = None,
    examples: int = 1,
    push: str | None = None,
    private: bool = False,
    overwrite: bool = False,
) -> None:
    """Make a folder for the Hugging Face hub of an adapter: weights, config, model card, sound examples, plots; upload it.

    Args:
        adapter: adapter file of this project, a run's folder, a hub id, or `embedded`.
        out: write this folder; `--model.adapter FOLDER` and `AudioEditor` read it.
        evaluation: output folder of `evaluate`, or its evaluation.json: scores, plots and sounds of this adapter.
        run: folder of the training run, or its history.jsonl; by default the adapter's own folder.
        license: the hub's name of a licence, for example apache-2.0; without it an adapter of the embedded backbone has
            apache-2.0. The licence of the backbone's weights may decide it.
        base_model: hub id of the backbone; by default what the adapter was trained on, if that is a hub id.
        datasets: hub ids of the data that the adapter was trained on.
        name: name of the adapter; by default that of the repository, or of the folder.
        examples: number of sound examples of each task, with the recording that was edited (its first 30 s); 0 publishes none.
        push: upload the folder to this repository (owner/name) of the hub; log in first with `hf auth login`.
        private: make a new repository private.
        overwrite: replace `out` where it is an earlier published folder.

    Raises:
        FileNotFoundError, InputError: If a setting cannot be used, before anything is written; if the hub refuses the upload.
    """
    _check(license, base_model, datasets or [], examples, push)
    _check_free(out, overwrite)
    file = AdapterFile.read(resolve_source(adapter, "adapter", download, part=ADAPTER_FILE))
    if file.metadata.get("format") != FORMAT:
        raise InputError(
            f"adapter: {file.path} is not an adapter file of this project. Convert it first: "
            f"python -m apa_lightning adapter --source {adapter} --to {ADAPTER_FILE}"
        )
    trained_on = file.metadata.get("backbone", "")
    base_model = base_model or (trained_on if _is_hub_id(trained_on) else None)
    if base_model is None and trained_on != EMBEDDED:
        raise InputError(f"base_model: the adapter was trained on {trained_on or 'a backbone'}; give its hub id.")
    license = license or ("apache-2.0" if trained_on == EMBEDDED else None)
    if license is None:
        raise InputError(f"license: is missing; give the licence of the adapter. That of {base_model} may decide it.")
    digest = digest_of(file.weights)
    evaluated = Evaluated.read(evaluation, digest) if evaluation else None
    found = file.path.parent / HISTORY
    history = run / HISTORY if run and run.is_dir() else run or (found if found.is_file() else None)
    training = training_facts(history, file.metadata)
    parts = {} if trained_on == EMBEDDED else {"backbone": base_model or ""}
    if _is_hub_id(encoder := file.metadata.get("audio_encoder", EMBEDDED)):
        parts["audio_encoder"] = encoder
    about = About(
        name=name or (push or out.resolve().name).rpartition("/")[2],
        id=push or out.resolve().name,
        license=license,
        base=f"[{base_model}](https://huggingface.co/{base_model})"
        if base_model
        else "the backbone that comes with apa_lightning",
        base_model=base_model,
        datasets=datasets or [],
        parts=parts,
        parameters=sum(weight.numel() for weight in file.weights.values()),
        digest=digest,
        training=training,
    )

    place = out.resolve()
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
        folder = Path(temporary) / place.name
        header = {**file.metadata, "backbone": EMBEDDED if trained_on == EMBEDDED else base_model or ""}
        header["audio_encoder"] = encoder if _is_hub_id(encoder) else Path(encoder).name
        write_file(folder / ADAPTER_FILE, safetensors.torch.save(file.weights, metadata=header))
        write_file(folder / CONFIG, json.dumps(_config(about, header, evaluated), indent=1) + "\n")
        sounds = _sounds(folder, evaluated, examples) if evaluated else []
        plots = _plots(folder, evaluated) if evaluated else []
        card = model_card(about, evaluated, sounds, plots)
        write_file(folder / CARD, str(card))
        if place.exists():
            shutil.rmtree(place)
        folder.rename(place)
    print(f"publish: {out} holds the adapter {digest}, its card, {len(sounds)} sound examples and {len(plots)} plots")
    if sounds:
        print(f"publish: the recordings in {out / EXAMPLES} become public with it; --examples 0 leaves them out")
    if push:
        print(f"publish: uploaded to {upload(out, push, private)}")


def _is_hub_id(source: str) -> bool:
    """Whether a source is a hub id and not a folder of this machine, whose name may look like one."""
    return HUB_ID.fullmatch(source) is not None and not Path(source).exists()


def upload(folder: Path, name: str, private: bool = False) -> str:
    """Upload a published folder; returns the address of the commit.

    Raises:
        InputError: If the hub cannot be reached, or refuses the card, the repository or the token.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    # The bases are OSError and the network library's error, httpx's or httpx2's.
    failures: tuple[type[Exception], ...] = (ValueError, *cast(Any, HfHubHTTPError.__bases__))
    api = HfApi()
    try:
        api.create_repo(name, private=private or None, exist_ok=True)  # None: the owner's own default
        replaced = [f"{EXAMPLES}/*", f"{PLOTS}/*"]
        return api.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Publish the adapter", delete_patterns=replaced
        ).commit_url
    except failures as error:
        why = " ".join((getattr(error, "server_message", None) or str(error)).split())
        raise InputError(
            f"push: {name} was not uploaded: {why} The folder {folder} is complete; after `hf auth login`: "
            f"hf upload {name} {folder}"
        ) from error


def _check(
    license: str | None, base_model: str | None, datasets: Sequence[str], examples: int, push: str | None
) -> None:
    """Refuse settings that the hub would not take, before anything is read."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    for field, value in (("base_model", base_model), ("push", push)):
        try:
            validate_repo_id(value)
        except HFValidationError as error:
            raise InputError(f"{field}: {value!r} is not a hub id ({first_line(error)}). Give owner/name.") from None
        if value is not None and "/" not in value:
            raise InputError(f"{field}: {value!r} is not a hub id. Give owner/name.")
    for dataset in datasets:
        if not _DATASET.fullmatch(dataset):
            raise InputError(f"datasets: {dataset!r} is not the hub id of a dataset. Give owner/name.")
    if license is not None and not re.fullmatch(r"[a-z0-9.+-]+", license):
        raise InputError(
            f"license: {license!r} is not the hub's name of a licence, for example apache-2.0 or cc-by-4.0."
        )
    if examples < 0:
        raise InputError(f"examples: {examples}; give 0 or more.")
    if push and get_token() is None:
        raise InputError("push: this machine has no token of the hub. Run `hf auth login`, or set HF_TOKEN.")


def _check_free(out: Path, overwrite: bool) -> None:
    """Refuse a folder that exists, unless it is an earlier published one that may be replaced."""
    if not out.exists():
        return
    own = {ADAPTER_FILE, CARD, CONFIG, EXAMPLES, PLOTS}
    if not out.is_dir() or (foreign := sorted({path.name for path in out.iterdir()} - own)):
        what = f"holds {foreign[0]}, which this command does not write" if out.is_dir() else "is a file"
        raise InputError(f"out: {out} {what}; give another folder.")
    if not overwrite and any(out.iterdir()):
        raise InputError(f"out: {out} exists already; give another folder, or replace it with --overwrite true.")


def _config(about: About, header: Mapping[str, str], evaluated: Evaluated | None) -> dict[str, Any]:
    """The content of ``config.json``: what the weights are, and the settings that they were evaluated with."""
    conventions = {key: value for key, value in header.items() if key not in HEADER}
    return {
        "library_name": "apa_lightning",
        "apa_lightning_version": apa_lightning.__version__,
        "variant": header.get("variant", ""),
        "backbone_kind": header.get("backbone_kind", ""),
        "base_model": about.base_model,
        "parameters": about.parameters,
        "digest": about.digest,
        "conventions": conventions,
        "edit_settings": evaluated.settings() if evaluated else {},
    }


def _sounds(folder: Path, evaluated: Evaluated, count: int) -> list[dict[str, Any]]:
    """Write the first edits of each task as FLAC, next to their sources; returns what the card says of them."""
    outputs = {(row.task, row.id, row.system): row.output for row in evaluated.rows}
    taken: dict[str, int] = {}
    found = []
    for row in evaluated.rows:
        number = taken.get(row.task, 0)
        if row.system != SYSTEM or number >= count:
            continue
        paths = {system: outputs.get((row.task, row.id, system), "") for system in COMPARED} | {"source": row.audio}
        there = {system: evaluated.folder / path for system, path in paths.items() if path}
        there = {system: path for system, path in there.items() if path.is_file()}
        if not there.keys() >= {"source", SYSTEM}:
            continue
        taken[row.task] = number + 1
        stem = f"{re.sub(r'[^A-Za-z0-9-]+', '-', row.task)}-{number + 1}"
        files = {}
        for system, path in there.items():
            waveform, sample_rate = load_audio(path, seconds=MOST_SECONDS)
            name = f"{EXAMPLES}/{stem}-{system.replace('_', '-')}.flac"
            save_audio(folder / name, waveform / max(1.0, waveform.abs().max().item()), sample_rate)
            files[COMPARED[system]] = name
        found.append({"task": row.task, "prompt": row.prompt, "files": files})
    return found


def _plots(folder: Path, evaluated: Evaluated) -> list[Path]:
    """Copy the plots of an evaluation; returns their paths within ``folder``."""
    found = []
    for path in sorted((evaluated.folder / PLOTS).glob("*.png")):
        place = Path(PLOTS) / re.sub(r"[^A-Za-z0-9_.-]+", "-", path.name)
        write_file(folder / place, path.read_bytes())
        found.append(place)
    return found
