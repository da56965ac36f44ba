"""The command ``adapter``: look at an adapter file, and convert between this project's format and the published one."""

from pathlib import Path

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.backbones.factory import load_backbone
from apa_lightning.errors import InputError
from apa_lightning.utils.atomic_files import remove_leftovers


def convert(source: Path, to: Path | None = None, backbone: str = "embedded", overwrite: bool = False) -> None:
    """Check an adapter file against a backbone, describe it, and convert it to or from the published format.

    Args:
        source: adapter file: ``.safetensors`` of this project, or the published ``pytorch_model.bin``; ``embedded`` is the one
            that comes with the package.
        to: write it here: ``.safetensors`` is this project's format, ``.bin`` the published one.
        backbone: the folder or hub id of the backbone it belongs to, or ``embedded``.
        overwrite: replace ``to`` where it exists.
    """
    if to is not None and to.suffix not in (".safetensors", ".bin"):
        raise InputError(f"to: {to} must end in .safetensors (this project's format) or .bin (the published format).")
    if to is not None and to.resolve() == source.resolve():
        raise InputError(f"to: {to} is the source itself; give another file.")
    if to is not None and to.exists() and not overwrite:
        raise InputError(f"to: {to} exists already; give another file, or replace it with --overwrite true.")
    adapter = load_backbone(backbone).new_adapter(source)
    assert isinstance(adapter, AudioPromptAdapter)  # the published format has no other
    print(
        f"{source}: {adapter.variant} adapter, {len(adapter.layer_names)} layers, {sum(p.numel() for p in adapter.parameters()):,} parameters, "
        f"digest {adapter.digest()}, fits {backbone}"
    )
    for key, value in sorted(adapter.metadata.items()):
        print(f"  {key}: {value}")
    if to is not None:
        remove_leftovers(to)
        adapter.save(to, backbone=backbone) if to.suffix == ".safetensors" else adapter.export_published(to)
        print(f"written to {to}")
