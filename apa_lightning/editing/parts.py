"""The parts that make an edit, and whether its settings suit them."""

from collections.abc import Sequence
from typing import Any, cast

from apa_lightning.adapters.base import Adapter
from apa_lightning.adapters.scale import Scale, expand_scale, scale_between
from apa_lightning.backbones.base import Backbone
from apa_lightning.conditioning.base import AudioConditioner
from apa_lightning.conditioning.dropout import DroppedAudio
from apa_lightning.conditioning.pooling import pooling_kernel
from apa_lightning.editing.audio_prompts import AudioPrompt, of_prompt, prompts_for
from apa_lightning.editing.defaults import EditDefaults, Settings
from apa_lightning.editing.knobs import check_sampling
from apa_lightning.editing.settings import EditSettings
from apa_lightning.errors import InputError


class EditParts:
    """A backbone, an audio encoder and adapters that fit each other.

    Args:
        backbone: The frozen text-to-music model.
        audio_encoder: The frozen encoder of the audio prompt.
        adapters: Applied to the backbone during an edit; all read the same audio prompt.
        unconditional_audio: The audio prompt of Eq. 12's unconditional branch: ``zeros`` (paper: none) or ``zero_fbank``
            (published code); by default what the first adapter was trained with.
        edit_defaults: Defaults of the knobs that an edit leaves out; by default those of the backbone.

    Raises:
        InputError: If the parts do not fit each other.
    """

    def __init__(
        self,
        backbone: Backbone,
        audio_encoder: AudioConditioner,
        adapters: Sequence[Adapter],
        unconditional_audio: DroppedAudio | None = None,
        edit_defaults: EditDefaults | None = None,
    ):
        if not adapters:
            raise InputError("adapter: the list is empty; give one or more, or None for an untrained one.")
        self.backbone, self.adapters = backbone, list(adapters)
        self.audio_encoder = audio_encoder = backbone.fit_conditioner(audio_encoder)
        for adapter in self.adapters[1:]:
            for name, value in audio_encoder.conventions().items():
                if adapter.metadata.get(name, value) != self.adapters[0].metadata.get(name, value):
                    raise InputError(
                        f"adapter: {adapter.name} was trained with {name} {adapter.metadata.get(name, value)}, the first "
                        f"one with {self.adapters[0].metadata.get(name, value)}. They cannot be used together."
                    )
        self.unconditional_audio = unconditional_audio or self.adapters[0].metadata.get("dropped_audio", "zeros")
        if self.unconditional_audio not in ("zeros", "zero_fbank"):
            raise InputError(
                f"unconditional_audio: {self.unconditional_audio!r} is unknown; choose 'zeros' or 'zero_fbank'."
            )
        defaults = edit_defaults or EditDefaults(backbone.edit_defaults)
        self.edit_defaults = defaults.for_sampling(backbone.sampling)

    def filled(self, settings: Settings) -> Settings:
        """The settings with the values that they have in an edit; raises :class:`InputError` where their task is unknown."""
        return self.edit_defaults.fill(settings)

    def check_defaults(self) -> None:
        """Raise :class:`InputError` where defaults that are not the paper's do not suit the backbone and its adapters."""
        if not self.edit_defaults.is_papers:
            for task in (None, *self.edit_defaults.tasks):
                for problem in self.problems(EditSettings(task=task)):
                    where = self.edit_defaults.source + ("" if task is None else f": tasks.{task}")
                    raise InputError(f"{where}: {problem}")

    def problems(self, settings: EditSettings) -> list[InputError]:
        """What is wrong with settings that are good by themselves, but not for these parts."""
        try:
            settings = self.filled(settings)
        except InputError as error:
            return [error]
        found = []
        for check in (self.check_sampling, self.check_scale, self.check_pooling, self.check_prompts):
            try:
                check(settings)
            except InputError as error:
                found.append(error)
        return found

    def check_sampling(self, settings: EditSettings) -> None:
        """Raise :class:`InputError` unless the knobs of sampling suit the backbone, such as a scheduler and its steps."""
        check_sampling(settings, self.backbone.sampling, self.backbone.name)
        self.backbone.check_settings(settings)

    def check_scale(self, settings: EditSettings) -> None:
        """Raise :class:`InputError` unless ``ap_scale`` and its end suit the adapters and name layers of the backbone."""
        start = cast(Any, settings.ap_scale)
        end = start if settings.ap_scale_end is None else settings.ap_scale_end
        scale_between(start, end, 0.0, len(self.adapters), self.adapters[0].layer_names)

    def ap_scale_at(self, settings: EditSettings, share: float) -> list[Scale]:
        """Alpha of each audio prompt after a share of the timesteps."""
        prompts = self.prompts(settings)
        ends = [one.ap_scale for one in prompts], [one.ap_scale_end for one in prompts]
        return scale_between(*ends, share, len(prompts), self.adapters[0].layer_names)

    def check_pooling(self, settings: EditSettings) -> None:
        """Raise :class:`InputError` unless the pooling rates divide the audio encoder's grid."""
        pooling_kernel(self.audio_encoder.grid_size, cast(int, settings.time_pooling), settings.freq_pooling)

    def check_prompts(self, settings: EditSettings) -> None:
        """Raise :class:`InputError` unless each of ``audio_prompts`` names a loaded adapter and suits it and the grid."""
        for number, entry in enumerate(settings.prompt_entries):
            with of_prompt(number):
                check_sampling(entry, self.backbone.sampling, self.backbone.name)
        for number, prompt in enumerate(self.prompts(settings) if settings.audio_prompts else ()):
            with of_prompt(number):
                expand_scale(prompt.ap_scale, self.adapters[0].layer_names)
                expand_scale(prompt.ap_scale_end, self.adapters[0].layer_names, "ap_scale_end")
                pooling_kernel(self.audio_encoder.grid_size, prompt.time_pooling, prompt.freq_pooling)

    def prompts(self, settings: EditSettings) -> list[AudioPrompt]:
        """The audio prompts of an edit, with numbers of adapters and all values."""
        return prompts_for(settings, [adapter.name for adapter in self.adapters])
