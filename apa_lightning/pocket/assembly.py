"""Trained parts as one folder that diffusers' ``AudioLDM2Pipeline`` and this project load."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import diffusers

from apa_lightning.backbones.architectures import POCKET, new_scheduler
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import atomic_path
from apa_lightning.utils.rng import seeded

_TRANSFORMERS = ("config.json", "model.safetensors")
_DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")
#: For each part the library and name of its class in model_index.json, its files, and the recipe (configs/pocket/) that makes it.
PARTS: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "vae": ("diffusers", "AutoencoderKL", _DIFFUSERS, "vae"),
    "vocoder": ("transformers", "SpeechT5HifiGan", _TRANSFORMERS, "vocoder"),
    "tokenizer": ("transformers", "RobertaTokenizer", ("tokenizer_config.json",), "clap"),
    "text_encoder": ("transformers", "ClapModel", _TRANSFORMERS, "clap"),
    "feature_extractor": ("transformers", "ClapFeatureExtractor", ("preprocessor_config.json",), "clap"),
    "tokenizer_2": ("transformers", "T5Tokenizer", ("tokenizer_config.json",), "text_encoder"),
    "text_encoder_2": ("transformers", "T5EncoderModel", _TRANSFORMERS, "text_encoder"),
    "projection_model": ("audioldm2", "AudioLDM2ProjectionModel", _DIFFUSERS, "loa"),
    "language_model": ("transformers", "GPT2LMHeadModel", _TRANSFORMERS, "loa"),
    "unet": ("audioldm2", "AudioLDM2UNet2DConditionModel", _DIFFUSERS, "unet"),
    "audio_encoder": ("timm", "", _TRANSFORMERS, "audio_mae"),
}
WITHOUT_UNET = tuple(part for part in PARTS if part != "unet")
MAX_FOLDER_BYTES, MAX_FILE_BYTES = 32_000_000, 15 * 2**20


def missing(folder: Path, parts: Sequence[str] = tuple(PARTS)) -> list[str]:
    """The ``parts`` that ``folder`` lacks; weights may be in several files with an index."""

    def there(part: str, file: str) -> bool:
        return any((folder / part / name).is_file() for name in (file, f"{file}.index.json"))

    return [part for part in parts if not all(there(part, file) for file in PARTS[part][2])]


def require(folder: Path, parts: Sequence[str] = tuple(PARTS)) -> None:
    """Raise :class:`InputError` unless ``folder`` holds all of ``parts``; the message names the recipes that make them."""
    if not (lacking := missing(folder, parts)):
        return
    recipes = dict.fromkeys(PARTS[part][3] for part in lacking)
    commands = "; ".join(
        f"python -m apa_lightning fit --config configs/pocket/{name}.yaml --model.folder {folder}" for name in recipes
    )
    raise InputError(f"model.folder: {folder} lacks {', '.join(lacking)}. Make it first: {commands}")


def complete(folder: Path) -> None:
    """Make a folder of trained parts loadable: write its ``model_index.json`` and ``scheduler/``.

    Raises:
        InputError: If a part is missing.
    """
    require(folder)
    new_scheduler().save_pretrained(folder / "scheduler")  # type: ignore[attr-defined]
    classes = {part: [library, name] for part, (library, name, _, _) in PARTS.items() if part != "audio_encoder"}
    index = {
        "_class_name": "AudioLDM2Pipeline",
        "_diffusers_version": diffusers.__version__,
        **dict(sorted({**classes, "scheduler": ["diffusers", "DDIMScheduler"]}.items())),
    }
    with atomic_path(folder / "model_index.json") as temporary:
        temporary.write_text(json.dumps(index, indent=2) + "\n")


def with_untrained_unet(folder: Path, target: Path, seed: int = 0) -> None:
    """Copy the parts of ``folder`` to ``target``, add an untrained U-Net of the pocket sizes, and complete the folder.

    Raises:
        InputError: If a part other than the U-Net is missing, or ``target`` holds a pipeline already.
    """
    from apa_lightning.pocket.parts.part import save_half  # imports Lightning, which an editor does without

    require(folder, WITHOUT_UNET)
    if (target / "model_index.json").exists() or target.resolve() == folder.resolve():
        raise InputError(f"target: {target} is a backbone already; give a new folder.")
    for part in WITHOUT_UNET:
        shutil.copytree(folder / part, target / part, dirs_exist_ok=True)
    with seeded(seed):
        save_half(POCKET.build_unet(), target / "unet")
    complete(target)


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each part, and of the files outside all parts (``.``), as they are shipped.

    Raises:
        InputError: If the folder is larger than 32 MB (10^6 bytes), or one file larger than 15 MiB.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    total: dict[str, int] = {}
    for path in files:
        part = path.relative_to(folder).parts[0] if path.parent != folder else "."
        total[part] = total.get(part, 0) + path.stat().st_size
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InputError(
                f"{path}: {path.stat().st_size:,} bytes; a file of the pocket has at most {MAX_FILE_BYTES:,}."
            )
    if (whole := sum(total.values())) > MAX_FOLDER_BYTES:
        raise InputError(f"{folder}: {whole:,} bytes; the pocket has at most {MAX_FOLDER_BYTES:,}.")
    return total
