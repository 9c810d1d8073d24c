"""SpecAugment: frames of utterances in, the same with stretches of them blotted out.

Park et al. 2019, "SpecAugment", by the settings that transformers' configs carry:
``mask_time_*`` for stretches of frames, which become the model's learned mask vector
(as in wav2vec 2.0), and ``mask_feature_*`` for stretches of features, which become 0.

It differs from transformers' own in three ways. All randomness is from one
`torch.Generator`. Every utterance draws for itself, its rounding included, so what
it gets does not hang on its neighbours' lengths. And the config's least number of
masks (usually two of ten frames) is cut down for an utterance of which they would
cover more than a fifth: with 20 of a word's 22 frames always hidden a model learns to
guess (spoken digits from random weights: WER 0.36 with half of a word hidden, 0.16 so;
docs/experiments.md). Masks too long for an utterance are left out, not an error.

Log-mel features, before a model sees them, are masked by other sizes: bands as in
Park et al. 2019; of stretches a number that grows with the length, each up to a share
of it, as in Park et al. 2020, "SpecAugment on large scale datasets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thanosql.speech.recognizers.precision import sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedConfig


BANDS, BAND_SHARE = 2, 27 / 80  # masks, and of the mel bands, at most, under each
STRETCHES, STRETCH_SHARE = 10, 0.05  # at most; of the frames, at most, under each
FRAMES_A_STRETCH = 25  # a word has few stretches


def spec_augment(
    hidden: Tensor,
    lengths: Sequence[int],
    mask_vector: Tensor,
    config: PreTrainedConfig,
    generator: torch.Generator | None,
) -> Tensor:
    """Return `hidden` with masks over time and over features, as `config` sizes them.

    hidden: (sum of lengths, features), one utterance after the other; mask_vector:
    (features,), or () for a constant; generator: on the CPU, None for torch's own.
    """
    # Drawn on the CPU whatever the device, so that nothing waits for a GPU.
    if config.mask_time_prob > 0:
        masks = [
            draw_mask(
                length,
                config.mask_time_prob,
                config.mask_time_length,
                config.mask_time_min_masks,
                generator,
            )
            for length in lengths
        ]
        mask = sent(torch.cat(masks), hidden.device)[:, None]
        hidden = torch.where(mask, mask_vector.to(hidden.dtype), hidden)
    if getattr(config, "mask_feature_prob", 0) > 0:
        masks = [
            draw_mask(
                hidden.shape[1],
                config.mask_feature_prob,
                config.mask_feature_length,
                getattr(config, "mask_feature_min_masks", 0),  # WavLM has none
                generator,
            )
            for _ in lengths
        ]
        mask = sent(torch.stack(masks), hidden.device)
        parts = zip(torch.split(hidden, list(lengths)), mask, strict=True)
        hidden = torch.cat([part.masked_fill(hides, 0) for part, hides in parts])
    return hidden


def mask_log_mels(
    features: Sequence[Tensor], bins: int, generator: torch.Generator | None
) -> list[Tensor]:
    """Return log-mels with bands of them, and stretches of time, at their mean.

    features: (frames, columns) an utterance, where the columns are `bins` mel bands, or
    so many more than once (frames in a row, deltas); generator: on the CPU, None for
    torch's own. The stretches hide half of an utterance at most, and less of a short
    one.
    """
    if not features:
        return []
    # For all utterances at once: two numbers a mask, whatever the lengths.
    drawn = torch.rand(len(features), BANDS + STRETCHES, 2, generator=generator)
    bands, stretches = drawn[:, :BANDS], drawn[:, BANDS:]
    lengths = torch.tensor([len(utterance) for utterance in features])
    stretches[torch.arange(STRETCHES) >= lengths[:, None] // FRAMES_A_STRETCH] = 0
    hidden = _hidden(bands, torch.full_like(lengths, bins), BAND_SHARE, bins)
    hidden = hidden.repeat(1, features[0].shape[1] // bins)[:, None]
    longest = int(lengths.max())
    hidden = hidden | _hidden(stretches, lengths, STRETCH_SHARE, longest)[..., None]
    masks = sent(hidden, features[0].device)
    return [
        torch.where(mask[: len(utterance)], utterance.mean(0), utterance)
        for utterance, mask in zip(features, masks, strict=True)
    ]


def _hidden(drawn: Tensor, lengths: Tensor, share: float, longest: int) -> Tensor:
    """Return which of each row's first places are under one of its masks.

    drawn: (rows, masks, 2), from 0 to below 1, for a mask's width, from none to
    `share` of the row's length, and its place; result: (rows, longest), bool.
    """
    length = lengths[:, None]
    widths = (drawn[..., 0] * ((share * length).floor() + 1)).floor()
    starts = (drawn[..., 1] * (length - widths + 1)).floor()
    places = torch.arange(longest)[:, None]
    under = (places >= starts[:, None]) & (places < (starts + widths)[:, None])
    return under.any(-1)


def draw_mask(
    length: int,
    probability: float,
    span: int,
    least: int,
    generator: torch.Generator | None,
) -> Tensor:
    """Return a mask (length,) of bool, on the CPU: True in random spans.

    The spans are `span` long, start at different places and may overlap; there are
    as many as would cover the share `probability` of the length if they did not,
    rounded up or down at random, and `least` of them if a fifth of it holds those.
    """
    mask = torch.zeros(length, dtype=torch.bool)
    if span > length:
        return mask
    rounding = float(torch.rand((), generator=generator))
    count = int(probability * length / span + rounding)
    count = max(count, min(least, length // (5 * span)))
    count = min(count, length // span)
    starts = torch.randperm(length - span + 1, generator=generator)[:count]
    mask[(starts[:, None] + torch.arange(span)).flatten()] = True
    return mask
