"""Classifier-free guidance (Eq. 12), with one scale or with one for each condition, as a wrapper around a model.

One scale lambda weighs text and recording together, against the negative prompt without a recording (Eq. 12):

    eps = eps(c_y-) + lambda * (eps(c_x, c_y) - eps(c_y-))

Two scales weigh the text first, then the recording on top of it, as InstructPix2Pix does with its conditions (arXiv 2211.09800)
and MuseControlLite in this order (arXiv 2506.18729):

    eps = eps(c_y-) + lambda_text * (eps(c_y) - eps(c_y-)) + lambda_audio * (eps(c_x, c_y) - eps(c_y))

With equal scales eps(c_y) cancels and Eq. 12 is left, so that its branch need not be computed. With lambda_audio 0 the text alone
is left, as with alpha 0.

Guidance may be confined to an interval of noise levels (Kynkäänniemi et al., arXiv 2404.07724): elsewhere only the last branch, the
model with all conditions, is computed.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from apa_lightning.diffusion.objectives import Model


def guide(branches: Sequence[Tensor], scales: Sequence[float | Tensor]) -> Tensor:
    """The first branch, and each step from one branch to the next times its scale.

    Args:
        branches: Predictions (B, C, T, ...): without conditions, with the first of them, with the first two, and so on.
        scales: One for each condition, a number or of a shape that broadcasts; none: the one branch itself.
    """
    guided = branches[0]
    for (fewer, more), scale in zip(pairwise(branches), scales, strict=True):
        guided = guided + scale * (more - fewer)
    return guided


def guided(branches: Model, scales: Tensor) -> Model:
    """A model of B items from one that predicts all branches of :func:`guide` in one pass.

    Args:
        branches: Predicts (K + 1) * B items, branch by branch.
        scales: K scales per item (K, B).
    """
    count = len(scales) + 1

    def model(latents: Tensor, time: Tensor) -> Tensor:
        predictions = branches(torch.cat([latents] * count), time).chunk(count)
        return guide(predictions, scales.reshape(*scales.shape, *[1] * (latents.ndim - 1)).unbind())

    return model


def within(interval: Sequence[float], guided: Model, plain: Model, train_timesteps: int) -> Model:
    """A model that is ``guided`` in an interval of the noise schedule, its ends included, and ``plain`` elsewhere.

    Args:
        interval: Two shares of the schedule: 0 is its first timestep, pure noise, and 1 its last, no noise.
        guided: Called inside of the interval.
        plain: Called outside of it.
        train_timesteps: Number of timesteps of the schedule.
    """
    first, last = interval

    def model(latents: Tensor, time: Tensor) -> Tensor:
        share = round(1 - float(time) / train_timesteps, 6)  # so that an end is met exactly
        return (guided if first <= share <= last else plain)(latents, time)

    return model
