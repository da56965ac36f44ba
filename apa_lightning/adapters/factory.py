"""The class of an adapter file: its header names a variant."""

from apa_lightning.adapters.audio_prompt import AudioPromptAdapter
from apa_lightning.adapters.base import AdapterError
from apa_lightning.adapters.files import AdapterFile
from apa_lightning.adapters.projected import ProjectedAdapter

#: Adapters by what their files call them. A file that names none is the paper's.
VARIANTS: dict[str, type[AudioPromptAdapter]] = {cls.variant: cls for cls in (AudioPromptAdapter, ProjectedAdapter)}


def adapter_for(file: AdapterFile) -> AudioPromptAdapter:
    """An adapter without weights of the variant that ``file`` holds.

    Raises:
        AdapterError: If this program does not know the variant.
    """
    variant = file.metadata.get("variant", AudioPromptAdapter.variant)
    if variant not in VARIANTS:
        raise AdapterError(
            f"adapter: {file.path} holds an adapter of the variant {variant}; this program knows {', '.join(VARIANTS)}. "
            "Update apa_lightning, or give the adapter's class as class_path and the file as its start_from."
        )
    return VARIANTS[variant].for_file(file)
