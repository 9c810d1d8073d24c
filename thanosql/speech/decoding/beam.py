"""Scores of frames in, the texts that a beam search finds out.

A language model and hotwords are asked for by words of texts, a recognizer spells them
in its own letters. Here one is brought to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.best_path import collapse
from thanosql.speech.decoding.frames import likely
from thanosql.speech.decoding.fusion import Fusion, Lexicon, Weights
from thanosql.speech.decoding.hotwords import Hotwords
from thanosql.speech.decoding.prefix_search import PrefixBeamSearch
from thanosql.speech.results import Alternative, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.decoding.frames import Frames
    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.recording import Span

# What a statement leaves open; docs/language-models.md has what else was tried.
BEAM_SIZE = 32
LM_WEIGHT = 0.5
WORD_BONUS = 1.0
HOTWORD_WEIGHT = 1.0
_UNKNOWN_LETTER = -2.0
_KEPT = 8  # the fusions with hotwords of their own that are kept


@dataclass(frozen=True, eq=False)
class Beam:
    """CTC prefix beam search, with a language model and hotwords if there are any."""

    spelling: Spelling
    blank: int
    outputs: int
    "The tokens that the model scores."
    request: Request
    _fusions: dict[tuple[str, ...], Fusion] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raise OptionError if language model or hotwords are of another alphabet."""
        if self.request.language_model is not None and not len(self._lexicon):
            message = (
                "the recognizer can spell no word of the language model; it is of "
                "another alphabet"
            )
            raise OptionError(message)
        try:
            self.start()
        except DataError as error:
            raise OptionError(str(error)) from error

    def scores(self, logits: Tensor, lengths: Tensor) -> list[Frames]:
        """Return the likely tokens of each row's frames, on the CPU.

        logits: (batch, frames, vocab); lengths: (batch,), the frames that are not
        padding.
        """
        return likely(logits, lengths, self._written)

    def start(self, hotwords: tuple[str, ...] = ()) -> BeamDecoder:
        """Return a decoder for one recording.

        hotwords: those to be expected in it, beside the request's. Raises DataError if
        the vocabulary cannot spell one.
        """
        names = tuple(dict.fromkeys((*self.request.hotwords, *hotwords)))
        fusion = self._fusions.get(names)
        if fusion is None:
            fusion = self._fusion(names)
            if len(self._fusions) >= _KEPT:
                self._fusions.clear()
            self._fusions[names] = fusion
        return BeamDecoder(self, fusion)

    @cached_property
    def letters(self) -> tuple[str, ...]:
        """The letters of each token; "" for one that is no text."""
        tokens = self.spelling.tokens
        return tuple(tokens.get(index, "") for index in range(self.outputs))

    @cached_property
    def space(self) -> int | None:
        """The token that is a space and nothing else."""
        return self.letters.index(" ") if " " in self.letters else None

    @cached_property
    def _written(self) -> Tensor:
        return torch.tensor([bool(letters) for letters in self.letters])

    @cached_property
    def _lexicon(self) -> Lexicon:
        model = self.request.language_model
        return Lexicon(model.words if model else (), self.spelling.letters)

    def _fusion(self, names: tuple[str, ...]) -> Fusion:
        """Return what texts gain with these hotwords; DataError if one has no spelling.

        Every character of it must be spelled. An accent may be lacking: é is an e then.
        """
        spellings = []
        for name in names:
            normalized = self.spelling.normalize(name)
            spelling = self.spelling.letters(normalized.text)
            if normalized.dropped or not spelling:
                lacking = ", ".join(map(repr, normalized.dropped)) or "any of it"
                message = (
                    f"hotword {name!r} cannot be spelled by the model, whose vocabulary "
                    f"lacks {lacking}; write it in the model's letters, as it is spoken"
                )
                raise DataError(message)
            spellings.append(spelling)
        request = self.request
        weights = Weights(
            language_model=_or(request.lm_weight, LM_WEIGHT),
            word=_or(request.word_bonus, WORD_BONUS if request.language_model else 0.0),
            unknown_letter=_UNKNOWN_LETTER,
        )
        spaced = any(" " in letters for letters in self.letters)
        return Fusion(
            self.letters,
            weights,
            language_model=request.language_model,
            lexicon=self._lexicon,
            hotwords=Hotwords(
                spellings,
                _or(request.hotword_weight, HOTWORD_WEIGHT),
                " " if spaced else "",
            ),
            names=Lexicon(
                (word for each in spellings for word in each.split()), lambda word: word
            ),
        )


class BeamDecoder:
    """Searches through one recording, window by window."""

    def __init__(self, decoding: Beam, fusion: Fusion) -> None:
        self._decoding = decoding
        size = decoding.request.beam_size or BEAM_SIZE
        self._search = PrefixBeamSearch(fusion, size, decoding.space)
        self._best: list[Tensor] = []

    def feed(self, scores: Frames, kept: slice, spans: Sequence[Span]) -> None:
        """Take the frames of the next window."""
        frames = scores[kept]
        self._search.advance(frames)
        if self._decoding.request.best_path:
            self._best.append(torch.from_numpy(frames.best))

    def silence(self) -> None:
        """Take note of a window without speech: a blank."""
        self._search.pause()
        self._best.append(torch.tensor([self._decoding.blank]))

    def finish(self) -> Hypothesis:
        """Return the likeliest text, and as many others as are asked for."""
        decoding = self._decoding
        found: dict[str, tuple[list[int], float]] = {}
        for tokens, score in self._search.texts():
            text = "".join(decoding.letters[token] for token in tokens)
            text = " ".join(text.split())
            first, total = found.get(text, (tokens, 0.0))
            found[text] = first, total + math.exp(score)
        texts = sorted(found.values(), key=lambda each: -each[1])
        everything = sum(share for _, share in texts)
        alternatives = [
            Alternative(decoding.spelling.decode(tokens), share / everything)
            for tokens, share in texts[: decoding.request.alternatives or 1]
        ]
        return Hypothesis(
            alternatives[0].text,
            alternatives=tuple(alternatives if decoding.request.alternatives else ()),
            best_path=self._best_path() if decoding.request.best_path else None,
        )

    def _best_path(self) -> str:
        decoding = self._decoding
        path = torch.cat(self._best)
        return decoding.spelling.decode(collapse(path, decoding.blank))


def _or(wanted: float | None, otherwise: float) -> float:
    return otherwise if wanted is None else wanted
