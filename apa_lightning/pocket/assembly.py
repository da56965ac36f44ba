"""The parts of a pocket folder, which diffusers' ``AudioLDM2Pipeline`` and this project load: reading, writing, completing."""

import copy
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import torch

from apa_lightning.backbones.architectures import new_scheduler
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import write_file
from apa_lightning.utils.pretrained import frozen, no_progress_bars
from apa_lightning.utils.rng import seeded

_TRANSFORMERS = ("config.json", "model.safetensors")
_DIFFUSERS = ("config.json", "diffusion_pytorch_model.safetensors")


class Part(NamedTuple):
    """A part of a pocket folder."""

    library: str  # Library of its class in model_index.json
    name: str  # Name of its class
    files: tuple[str, ...]
    recipe: str  # Name of the recipe (configs/pocket/) that makes it

    @property
    def kind(self) -> Any:
        """Its class; AudioLDM2's own classes are in diffusers."""
        return getattr(importlib.import_module(self.library.replace("audioldm2", "diffusers")), self.name)


PARTS = {
    "vae": Part("diffusers", "AutoencoderKL", _DIFFUSERS, "vae"),
    "vocoder": Part("transformers", "SpeechT5HifiGan", _TRANSFORMERS, "vocoder"),
    "tokenizer": Part("transformers", "RobertaTokenizer", ("tokenizer_config.json",), "clap"),
    "text_encoder": Part("transformers", "ClapModel", _TRANSFORMERS, "clap"),
    "feature_extractor": Part("transformers", "ClapFeatureExtractor", ("preprocessor_config.json",), "clap"),
    "tokenizer_2": Part("transformers", "T5Tokenizer", ("tokenizer_config.json",), "text_encoder"),
    "text_encoder_2": Part("transformers", "T5EncoderModel", _TRANSFORMERS, "text_encoder"),
    "projection_model": Part("audioldm2", "AudioLDM2ProjectionModel", _DIFFUSERS, "loa"),
    "language_model": Part("transformers", "GPT2LMHeadModel", _TRANSFORMERS, "loa"),
    "unet": Part("audioldm2", "AudioLDM2UNet2DConditionModel", _DIFFUSERS, "unet"),
    "audio_encoder": Part("timm", "", _TRANSFORMERS, "audio_mae"),
}
MAX_FOLDER_BYTES, MAX_FILE_BYTES = 40_000_000, 15 * 2**20


def missing(folder: Path, parts: Sequence[str] = tuple(PARTS)) -> list[str]:
    """The ``parts`` that ``folder`` lacks; weights may be in several files with an index."""

    def there(part: str, file: str) -> bool:
        return any((folder / part / name).is_file() for name in (file, f"{file}.index.json"))

    return [part for part in parts if not all(there(part, file) for file in PARTS[part].files)]


def require(folder: Path, parts: Sequence[str] = tuple(PARTS)) -> None:
    """Raise :class:`InputError` unless ``folder`` holds all of ``parts``; the message names the recipes that make them."""
    if not (lacking := missing(folder, parts)):
        return
    recipes = dict.fromkeys(PARTS[part].recipe for part in lacking)
    commands = "; ".join(
        f"python -m apa_lightning fit --config configs/pocket/{name}.yaml --model.folder {folder}" for name in recipes
    )
    raise InputError(f"model.folder: {folder} lacks {', '.join(lacking)}. Make it first: {commands}")


def load_part(folder: Path, part: str) -> Any:
    """A diffusers or transformers part of ``folder`` in single precision, ready for further training.

    Raises:
        InputError: If the folder lacks the part; the message names the recipe that makes it.
    """
    require(Path(folder), (part,))
    precision = {"dtype" if PARTS[part].library == "transformers" else "torch_dtype": torch.float32}
    with no_progress_bars():
        return PARTS[part].kind.from_pretrained(Path(folder) / part, **precision)


def load_frozen(folder: Path, part: str) -> Any:
    """As :func:`load_part`, in evaluation mode and without gradients."""
    return frozen(load_part(folder, part))


def load_processor(folder: Path, part: str) -> Any:
    """A tokenizer or feature extractor of ``folder``."""
    with no_progress_bars():
        return PARTS[part].kind.from_pretrained(folder / part)


def untrained(folder: Path, part: str, seed: int) -> Any:
    """A frozen part of the sizes of the one in ``folder``, with random weights."""
    kind = PARTS[part].kind
    with seeded(seed):
        if PARTS[part].library == "transformers":
            return frozen(kind(kind.config_class.from_pretrained(folder / part)))
        return frozen(kind.from_config(kind.load_config(folder / part)))


def save_half(part: Any, folder: Path, **options: Any) -> None:
    """Save a half-precision copy of a diffusers or transformers model by ``save_pretrained(folder, **options)``.

    Its configuration asks for single precision, which transformers would otherwise not use by default.
    """
    with no_progress_bars():
        copy.deepcopy(part).cpu().half().save_pretrained(folder, **options)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('\n  "dtype": "float16"', '\n  "dtype": "float32"'))


def complete(folder: Path) -> None:
    """Make a folder of trained parts loadable: write its ``model_index.json`` and ``scheduler/``.

    Raises:
        InputError: If a part is missing.
    """
    require(folder)
    new_scheduler().save_pretrained(folder / "scheduler")  # type: ignore[attr-defined]
    classes = {name: [part.library, part.name] for name, part in PARTS.items() if part.name}
    classes["scheduler"] = ["diffusers", "DDIMScheduler"]
    about = {"_class_name": "AudioLDM2Pipeline", "_diffusers_version": diffusers.__version__}
    index = {**about, **dict(sorted(classes.items()))}
    write_file(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each part, and of the files outside all parts (``.``), as they are shipped.

    Raises:
        InputError: If the folder is larger than 40 MB (10^6 bytes), or one file larger than 15 MiB.
    """
    total: dict[str, int] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        part, size = path.relative_to(folder).parts[0] if path.parent != folder else ".", path.stat().st_size
        total[part] = total.get(part, 0) + size
        if size > MAX_FILE_BYTES:
            raise InputError(f"{path}: {size:,} bytes; a file of the pocket has at most {MAX_FILE_BYTES:,}.")
    if (whole := sum(total.values())) > MAX_FOLDER_BYTES:
        raise InputError(f"{folder}: {whole:,} bytes; the pocket has at most {MAX_FOLDER_BYTES:,}.")
    return total
