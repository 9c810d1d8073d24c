"""Whisper's word times: a text and the sound it was written from in, words out.

The decoder reads its text once more, all tokens at a time, and tells by some of its
heads where it listens. `decoding/attention_path.py` makes times of that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from thanosql.speech.decoding.attention_path import sounding, spoken_frames
from thanosql.speech.decoding.token_words import words_of
from thanosql.speech.recognizers.whisper_encoder import FRAMES_A_SECOND
from thanosql.speech.results import Word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel

    from thanosql.speech.decoding.subwords import Subwords
    from thanosql.speech.recognizers.whisper_decoder import WhisperSteps

_SMOOTHED = 7  # frames of which the attention's median is taken
_LEAST_DEVIATION = 1e-8  # of weights that are the same for all tokens but for rounding


@dataclass(frozen=True, slots=True)
class Told:
    """A text that was written of an utterance."""

    text: str
    tokens: tuple[int, ...]
    prefix: tuple[int, ...]
    "The tokens before them."
    spaced: bool
    "Whether its language has spaces between words."


class WhisperWords:
    """Finds when the words of texts were said."""

    def __init__(self, model: PreTrainedModel, spelling: Subwords) -> None:
        """Read what the model's configs say."""
        untyped: Any = model
        config = untyped.config
        self._heads = alignment_heads(
            untyped.generation_config,
            config.decoder_layers,
            config.decoder_attention_heads,
        )
        self._spelling = spelling

    def words(
        self,
        steps: WhisperSteps,
        utterance: int,
        features: Tensor,
        told: Told,
        never: Tensor,
    ) -> tuple[Word, ...]:
        """Return the words of a text, with seconds from the window's beginning.

        utterance: its number in `steps`. features: (frames, mels), its log-mels.
        never: the tokens that are never written. The confidence of a word is how likely
        its tokens are after all that stands before, punctuation aside.
        """
        ends = self._spelling.ends(told.tokens, told.text)
        words = [*words_of(told.text, ends, spaced=told.spaced)]
        if not words:
            return ()
        frames = heard_frames(features)
        tokens = torch.tensor([*told.prefix, *told.tokens], device=features.device)
        asked, logits = steps.follow(utterance, tokens)
        attention = self._attention(steps, utterance, asked, frames)
        # A token is chosen by what stands before it, and listens from there.
        begin = len(told.prefix) - 1
        chosen = [begin + token for word in words for token in word.spoken]
        spans = spoken_frames(
            attention[chosen].cpu().numpy(),
            [len(word.spoken) for word in words],
            _sounding_frames(features, frames),
        )
        logits = logits[begin:-1].index_fill(1, never, -torch.inf)
        gains = logits.gather(1, tokens[begin + 1 :, None])[:, 0] - logits.logsumexp(-1)
        log_probabilities = gains.cpu().numpy()
        return tuple(
            Word(
                word.text,
                first / FRAMES_A_SECOND,
                end / FRAMES_A_SECOND,
                float(np.exp(log_probabilities[[*word.spoken]].sum())),
            )
            for word, (first, end) in zip(words, spans, strict=True)
        )

    def _attention(
        self,
        steps: WhisperSteps,
        utterance: int,
        asked: Sequence[Tensor],
        frames: int,
    ) -> Tensor:
        """Return how much is listened to each frame behind each token.

        asked: the queries of each layer. Result: (tokens, frames), the mean over the
        heads that tell, in standard deviations over the tokens.
        """
        size = asked[0].shape[1], frames
        total = torch.zeros(size, device=asked[0].device)
        for layer, heads in self._heads.items():
            weights = steps.attention(
                utterance, layer, asked[layer][heads], heads, frames
            )
            deviation, mean = torch.std_mean(weights, 1, correction=0, keepdim=True)
            normal = (weights - mean) / deviation.clamp(min=_LEAST_DEVIATION)
            total += _smoothed(normal).sum(0)
        return total / sum(map(len, self._heads.values()))


def alignment_heads(config: Any, layers: int, heads: int) -> Mapping[int, list[int]]:
    """Return for each layer the heads that tell where the model listens.

    config: the generation config. Where it names none they are all of the upper half of
    the layers, as in OpenAI's code.
    """
    named = getattr(config, "alignment_heads", None)
    if not named:
        return {layer: [*range(heads)] for layer in range(layers // 2, layers)}
    found: dict[int, list[int]] = {}
    for layer, head in named:
        found.setdefault(layer, []).append(head)
    return found


def heard_frames(features: Tensor) -> int:
    """Return how many of the encoder's frames are of the window, and not filled up.

    features: (frames, mels). What they are filled up with are copies of the last one.
    """
    unlike = (features != features[-1]).any(1).nonzero()
    return int(unlike[-1]) // 2 + 1 if len(unlike) else 1


def _sounding_frames(features: Tensor, frames: int) -> NDArray[np.bool_]:
    """Return which of the encoder's frames are no pause: (frames,)."""
    # The extractor makes of a power's logarithm x, to the base of 10, (x + 4) / 4.
    powers = 10 ** (4 * features[: 2 * frames].double().cpu().numpy() - 4)
    levels = 10 * np.log10(powers.sum(1))
    halves = sounding(levels).reshape(-1, 2)
    return halves[:, 0] | halves[:, 1]


def _smoothed(weights: Tensor) -> Tensor:
    """Return the medians of (heads, tokens, frames) over neighbouring frames."""
    beside = _SMOOTHED // 2
    if weights.shape[2] <= beside:
        return weights
    padded = functional.pad(weights, (beside, beside), mode="reflect")
    return padded.unfold(2, _SMOOTHED, 1).median(-1).values
