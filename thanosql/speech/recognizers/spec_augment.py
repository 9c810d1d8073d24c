"""SpecAugment: frames of utterances in, the same frames with some of them masked out.

Park et al. 2019, "SpecAugment", with the settings in transformers' configs:
``mask_time_*`` replaces stretches of frames by the model's learned mask vector (as in
wav2vec 2.0); ``mask_feature_*`` sets stretches of features to 0.

It differs from transformers' own in three ways. All random numbers of an utterance come
from a generator of its own. Its masks do not depend on the others in its batch. And the
config's least number of masks (usually two, of ten frames) is lowered for an utterance
of which they would cover more than a fifth: a model from which 20 of a word's 22 frames
are always hidden learns to guess (spoken digits from random weights: WER 0.36 with half
of a word hidden, 0.16 with a fifth; docs/experiments.md).
A mask longer than the utterance is left out and is no error.

Log-mel features, before they enter a model, get masks of other sizes: bands as in Park
et al. 2019; and stretches, whose number and length grow with the utterance, as in Park
et al. 2020, "SpecAugment on large scale datasets".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from thanosql.speech.recognizers.draws import of_utterances
from thanosql.speech.recognizers.precision import sent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedConfig

    from thanosql.speech.recognizers.draws import Draws


BANDS, BAND_SHARE = 2, 27 / 80  # masks; largest share of the mel bands in each
STRETCHES, STRETCH_SHARE = 10, 0.05  # most masks; largest share of the frames in each
FRAMES_A_STRETCH = 25  # one stretch for so many frames, so that a word has few


def spec_augment(
    hidden: Tensor,
    lengths: Sequence[int],
    mask_vector: Tensor,
    config: PreTrainedConfig,
    draws: Draws | None,
) -> Tensor:
    """Return `hidden` with masks over time and features, of the sizes in `config`.

    hidden: (sum of lengths, features), one utterance after the other; mask_vector:
    (features,), or () for a constant; draws: None for torch's own generator.
    """
    # Masks are drawn on the CPU on any device, so that nothing waits for a GPU.
    generators = of_utterances(draws, len(lengths))
    if config.mask_time_prob > 0:
        masks = [
            draw_mask(
                length,
                config.mask_time_prob,
                config.mask_time_length,
                config.mask_time_min_masks,
                generator,
            )
            for length, generator in zip(lengths, generators, strict=True)
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
            for generator in generators
        ]
        mask = sent(torch.stack(masks), hidden.device)
        parts = zip(torch.split(hidden, list(lengths)), mask, strict=True)
        hidden = torch.cat([part.masked_fill(hides, 0) for part, hides in parts])
    return hidden


def mask_log_mels(
    features: Sequence[Tensor], bins: int, draws: Draws | None
) -> list[Tensor]:
    """Return log-mels in which some bands and stretches of time are set to the mean.

    features: (frames, columns) for each utterance. The columns are `bins` mel bands, or
    a multiple of them (stacked frames, deltas). draws: None for torch's own generator.
    The stretches hide at most half of an utterance, and less of a short one.
    """
    if not features:
        return []
    # Two numbers for each mask, whatever an utterance's length.
    drawn = torch.stack(
        [
            torch.rand(BANDS + STRETCHES, 2, generator=generator)
            for generator in of_utterances(draws, len(features))
        ]
    )
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
    """Return which places of each row are masked: (rows, longest), bool.

    drawn: (rows, masks, 2), numbers from 0 to below 1. The first gives a mask's width,
    from 0 to `share` of the row's length; the second gives its place.
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

    The spans are `span` long, start at different places and may overlap. Without
    overlap they would cover the share `probability` of the length; their number is
    rounded up or down at random. There are at least `least` of them, as far as a fifth
    of the length has room for these.
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
