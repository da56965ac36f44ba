"""Sources of frozen parts (``embedded``, a local folder or file, a Hugging Face hub id), and how weights are read."""

import os
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import safetensors
import safetensors.torch
import torch
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, StrictDataclassError
from torch import Tensor, nn

from apa_lightning.errors import InputError

EMBEDDED = "embedded"
ADAPTER_FILE = "adapter.safetensors"
EDIT_DEFAULTS_FILE = "edit_defaults.yaml"
#: ``owner/name``; a name with the ending of a weights file is a path.
HUB_ID = re.compile(r"[\w.-]+/(?!.*\.(?:safetensors|bin|ckpt|pth?)$)[\w.-]+")
Module = TypeVar("Module", bound=nn.Module)
#: Exceptions of diffusers, transformers and timm for a folder that is damaged, foreign or hostile.
LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    TypeError,
    AttributeError,
    LookupError,
    EOFError,
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    StrictDataclassError,  # a wrong type in a config.json
)


def packaged() -> Path:
    """The folder that comes with the package: the pocket backbone (:mod:`apa_lightning.pocket`), and its adapter."""
    return Path(__file__).parents[1] / "pocket" / "weights"


def frozen(module: Module) -> Module:
    """``module`` in eval mode and without gradients."""
    return module.requires_grad_(False).eval()


def _logging() -> tuple[Any, Any]:
    """The logging modules of diffusers and transformers, which are imported when weights are loaded: they take seconds."""
    import diffusers
    import transformers

    return diffusers.utils.logging, transformers.utils.logging


@contextmanager
def only_errors() -> Iterator[None]:
    """Silence the warnings of diffusers and transformers where this program has messages of its own."""
    libraries = _logging()
    before = [library.get_verbosity() for library in libraries]
    try:
        for library in libraries:
            library.set_verbosity_error()
        with warnings.catch_warnings():
            # diffusers 0.42 against transformers' newer name, and torch's older weight norm
            warnings.filterwarnings("ignore", ".*past_key_values.* is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", ".*weight_norm.* is deprecated", FutureWarning)
            yield
    finally:
        for library, verbosity in zip(libraries, before, strict=True):
            library.set_verbosity(verbosity)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Silence the loading bars of diffusers and transformers; downloads from the hub keep theirs."""
    libraries = _logging()
    for library in libraries:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in libraries:
            library.enable_progress_bar()


def load_whole(kind: Any, path: Path, part: str = "", **options: Any) -> Any:
    """Load a model whose every weight comes from the files.

    By themselves, diffusers and transformers initialize the weights that a file lacks at random and only warn. Files of a
    variant (``model.fp16.safetensors``) are read where there are no others.

    Args:
        kind: Class of diffusers or transformers with ``from_pretrained``.
        path: Folder of the model.
        part: Sub-folder of ``path``.
        **options: Passed to ``from_pretrained``.

    Raises:
        ValueError: If weights are lacking.
        Exception: Any of :data:`LOADING_ERRORS`.
    """
    if not (path / part / "config.json").is_file():  # transformers would build a model of its default size
        raise FileNotFoundError(f"{part or path.name} holds no config.json")
    variant = _variant(path / part)
    with only_errors():
        model, info = kind.from_pretrained(path, subfolder=part, variant=variant, output_loading_info=True, **options)
    own = {name for name, _ in model.named_parameters()}  # a constant buffer may be missing
    if lacking := sorted(own & set(info["missing_keys"])):
        raise ValueError(f"{part or path.name} lacks {len(lacking)} of {len(own)} weights, first {lacking[0]}")
    return model


def _variant(folder: Path) -> str | None:
    """The variant of the weights in ``folder``, the part of their names that diffusers calls so; None if some have none."""
    names = [file.name for file in folder.iterdir() if file.suffix in (".safetensors", ".bin")]
    variants = {found[1] if (found := re.search(r"model\.(fp16|bf16)[.-]", name)) else "" for name in names}
    return min(variants, default="") or None


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has no message.

    For a pickle that was refused, torch's own message explains how to execute it after all; this one does not.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "a weights file holds objects other than tensors, or is damaged; it was not executed"
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def resolve_source(
    source: str | os.PathLike, field: str, download: Callable[[str], str | os.PathLike], part: str = ""
) -> Path:
    """Resolve ``source`` to a local folder or file.

    Args:
        source: ``embedded``, a path, or a hub id ``owner/name`` (with or without an ``hf-hub:`` prefix).
        field: Name of the setting, for the message.
        download: Function that fetches a hub id into the Hugging Face cache, or finds it there, and returns the folder.
        part: Sub-folder of the embedded backbone.

    Raises:
        FileNotFoundError: If the source is neither an existing path nor of a hub id's form.
        InputError: If the hub id is not cached and the hub cannot be read, or the package lacks its backbone.
    """
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"{field}: {source!r} is not a path. Give 'embedded', a path, or a hub id (owner/name).")
    if str(source) == EMBEDDED:
        whole = ("model_index.json", "unet/config.json")
        if lacking := [name for name in whole if not (packaged() / name).is_file()]:
            raise InputError(
                f"{field}: 'embedded' is the pocket backbone that comes with the package, but {packaged()} lacks "
                f"{', '.join(lacking)}. Install apa_lightning again, or give a path or a hub id (owner/name)."
            )
        return packaged() / part
    path = Path(source).expanduser()
    if path.exists():
        return path.resolve()
    name = re.sub(r"^hf[-_]hub:", "", str(source))
    if not HUB_ID.fullmatch(name):
        raise FileNotFoundError(f"{field}: {source} does not exist. Give 'embedded', a path, or a hub id (owner/name).")
    try:
        with only_errors():  # without a network diffusers announces what the message below says
            return Path(download(name))
    except GatedRepoError as error:
        raise InputError(
            f"{field}: the owners of {source} ask for a consent. Accept their terms at https://huggingface.co/{name}, then log in "
            "by `hf auth login`, or set HF_TOKEN."
        ) from error
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(
            f"{field}: {source} is neither a path nor in the Hugging Face cache, and the hub could not be read "
            f"({type(error).__name__}). Without a network use 'embedded', or a folder made elsewhere by "
            f"`hf download {name} --local-dir FOLDER`. Some owners ask for a consent first: https://huggingface.co/{name}."
        ) from error


def resolve_pipeline(source: str | os.PathLike) -> Path:
    """Resolve the source of a backbone to a folder in diffusers' layout, see :func:`resolve_source`.

    Raises:
        FileNotFoundError: If the folder holds no ``model_index.json``.
    """
    path = resolve_source(source, "backbone", _download_pipeline)
    if not (path / "model_index.json").is_file():
        raise FileNotFoundError(f"backbone: {path} holds no model_index.json; give a folder in diffusers' layout.")
    return path


def _download_pipeline(name: str) -> str:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.download(name)


def check_dtype(dtype: object) -> None:
    """Raise :class:`InputError` unless ``dtype`` is a floating-point type of torch."""
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"dtype: {dtype!r}; give torch.float32, torch.bfloat16 or torch.float16.")


def download_model(name: str) -> str:
    """Fetch a model of transformers by its hub id, or find it in the cache; returns its folder."""
    from huggingface_hub import snapshot_download

    return snapshot_download(name, allow_patterns=["*.safetensors", "*.json", "*.model", "*.txt"])


def read_weights(path: Path, field: str) -> dict[str, Tensor]:
    """Read the tensors of a ``.safetensors`` or a torch file.

    A torch file is read with ``weights_only``, so that nothing in it is executed. Wrappers of one level
    (``{"model": {...}}``, ``{"module": {...}}``, ``{"state_dict": {...}}``) are opened.

    Args:
        path: The file.
        field: Name of the setting, for the message.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If the file is truncated, is not a weights file, or is a pickle with anything but tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{field}: {path} does not exist.")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise InputError(f"{field}: {path} is damaged or no safetensors file ({error}).") from None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # of a file that is read, or refused below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{field}: {path} is not a plain weights file: it holds objects other than tensors, or is damaged. "
            "It was not executed. Ask for a safetensors file."
        ) from None
    except Exception as error:  # bytes of another format are read as commands of a pickle, whose errors are of any kind
        raise InputError(f"{field}: {path} is damaged or no weights file ({first_line(error)}).") from None
    for wrapper in ("model", "module", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise InputError(f"{field}: {path} holds no state dict.")
    return {key: value for key, value in content.items() if isinstance(value, Tensor)}
