"""The parts of a result that an edit makes new: regions of the recording and extensions of it, faded into what is kept."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from apa_lightning.audio import AudioError
from apa_lightning.editing.knobs import CROSSFADE, is_region
from apa_lightning.editing.settings import EditSettings

Part = tuple[float, float]
"""Start and end in seconds from the start of the recording; infinite where a part reaches the end of the result."""

MAX_SECONDS = 1_800.0


def regions_of(settings: EditSettings) -> list[Part]:
    """The regions of an edit in their order in time; those that overlap or touch are one."""
    region = settings.region
    return [] if region is None else _merged([region] if is_region(region) else region)  # type: ignore[arg-type, list-item]


def new_parts(settings: EditSettings, seconds: float, overlap: float = 0.0) -> list[Part]:
    """The parts of a result that are made new, in their order in time.

    Args:
        settings: Of the edit.
        seconds: Length of the recording.
        overlap: Seconds by which an extension reaches into the recording.
    """
    left, right = settings.extend or (0, 0)
    before = [(-math.inf, overlap)] if left else []
    after = [(seconds - overlap, math.inf)] if right else []
    return _merged([*before, *regions_of(settings), *after]) or [(-math.inf, math.inf)]


def joints_of(settings: EditSettings, seconds: float) -> tuple[Part, ...]:
    """Start and end, in seconds of the result, of each cross-fade between what is new and what is kept."""
    lead, after = settings.extend or (0, 0)
    fade, joints = settings.crossfade, []
    for start, end in new_parts(settings, seconds, fade):
        joints += [(lead + start, lead + start + fade)] if lead + start > 0 else []
        joints += [(lead + end - fade, lead + end)] if end < seconds + after else []
    return tuple(joints)


def check_fits(settings: EditSettings, seconds: float, name: str) -> None:
    """Raise :class:`AudioError` if regions, cross-fades and extensions do not suit a recording of ``seconds``."""
    extension = sum(settings.extend or ())
    if seconds + extension > MAX_SECONDS:
        raise AudioError(
            f"extend: {name} would last {seconds + extension:.0f} s; the limit for one edit is {MAX_SECONDS:g} s."
        )
    if extension and settings.crossfade > max(CROSSFADE, seconds / 2):
        raise AudioError(
            f"crossfade: {settings.crossfade:g} s at both ends leave nothing of {name}, which lasts {seconds:.2f} s; "
            f"give {seconds / 2:g} or less."
        )
    for start, end in regions_of(settings):
        if start >= seconds or end > seconds + 1e-3:
            raise AudioError(f"region: {start:g} to {end:g} s lies outside {name}, which lasts {seconds:.2f} s.")
        if settings.crossfade > max(CROSSFADE, (end - start) / 2):
            raise AudioError(
                f"crossfade: {settings.crossfade:g} s at both ends of the region from {start:g} to {end:g} s leave nothing of it; "
                f"give {(end - start) / 2:g} or less, or a longer region."
            )


def samples_of(part: Part, rate: float, length: int, before: int = 0) -> tuple[int, int]:
    """First sample of a part and the one after its last in a result.

    Args:
        part: The part.
        rate: Samples per second.
        length: Samples of the result.
        before: Samples before the recording.
    """
    start, end = (round(min(max(before + second * rate, 0), length)) for second in part)
    return start, end


def continued(waveform: Tensor, before: int, after: int) -> Tensor:
    """A recording (..., S) continued at both ends by its mirror image: what an extension is made from, and as loud as.

    Args:
        waveform: The recording.
        before: Samples in front of it.
        after: Samples behind it.
    """
    samples = waveform.shape[-1]
    place = torch.arange(-before, samples + after) % (2 * samples)
    return waveform[..., torch.minimum(place, 2 * samples - 1 - place)]


def crossfaded(kept: Tensor, new: Tensor, seconds: float, rate: int, fade_in: bool, fade_out: bool) -> Tensor:
    """A part (..., S) of a result, whose ends fade from and into what is kept.

    Up to :data:`CROSSFADE` the fade is linear. Between unrelated sounds that loses 3 dB in its middle, but only 0.4 dB of the
    125 ms over which loudness is heard. A longer fade keeps the power.

    Args:
        kept: The recording in the part.
        new: The edit in the part.
        seconds: Length of a fade.
        rate: Samples per second.
        fade_in: Whether the start fades.
        fade_out: Whether the end fades.
    """
    length = new.shape[-1]
    position, everywhere = torch.arange(length), torch.ones(length)
    fade = round(seconds * rate) + 1
    rise = (position + 1) / fade if fade_in else everywhere
    fall = (length - position) / fade if fade_out else everywhere
    weight = torch.minimum(rise, fall).clamp(0, 1)
    if seconds <= CROSSFADE:
        return torch.lerp(kept, new, weight)
    angle = weight * (math.pi / 2)
    return torch.where(weight < 1, kept * angle.cos() + new * angle.sin(), new)


def _merged(parts: Iterable[Part]) -> list[Part]:
    found: list[Part] = []
    for start, end in sorted(parts):
        if found and start <= found[-1][1]:
            start, end = found[-1][0], max(end, found.pop()[1])
        found.append((start, end))
    return found
