"""Scores of frames in, the texts that a beam search finds out.

A language model and hotwords are known by words, a recognizer by the letters of its
vocabulary; here one is brought to the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch

from thanosql.errors import DataError, OptionError
from thanosql.speech.decoding.best_path import collapse, pauses_of, read
from thanosql.speech.decoding.forced_path import ForcedPath
from thanosql.speech.decoding.frames import Frames, likely, silent
from thanosql.speech.decoding.fusion import Fusion, Lexicon, Weights
from thanosql.speech.decoding.hotwords import Hotwords
from thanosql.speech.decoding.prefix_search import PrefixBeamSearch
from thanosql.speech.decoding.words import Timeline
from thanosql.speech.results import Alternative, Hypothesis

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.decoding.spelling import Spelling
    from thanosql.speech.decoding.words import Grid
    from thanosql.speech.recording import Span

# What a statement leaves open; docs/language-models.md tells how they were found.
BEAM_SIZE = 32
LM_WEIGHT = 0.5
WORD_BONUS = 1.0  # where there is a language model
# A letter's. Less does with a language model, which asks no price for their spelling.
HOTWORD_WEIGHT, HOTWORD_WEIGHT_BESIDE_MODEL = 1.0, 0.5
_UNKNOWN_LETTER = -2.5
_KEPT = 8  # the most sets of hotwords whose `Fusion` is kept


class Window(NamedTuple):
    """What a decoder needs of a window."""

    frames: Frames
    pauses: list[tuple[int, int]]
    "Begin and end of each, in samples of the window; none unless words are wanted."


@dataclass(frozen=True, eq=False)
class Beam:
    """CTC prefix beam search, with a language model and hotwords if there are any."""

    spelling: Spelling
    blank: int
    outputs: int
    "The number of tokens that the model scores."
    request: Request
    grids: tuple[Grid, Grid]
    "Where frames of scores lie in a window, and features."
    _fusions: dict[tuple[str, ...], Fusion] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raise OptionError if language model or hotwords are of another alphabet."""
        if self.request.language_model is not None:
            reason = ""
            if not self._is_spaced:
                reason = "the model's vocabulary has no space that would end a word"
            elif not len(self._lexicon):
                reason = (
                    "the model can spell none of its words; its alphabet is another"
                )
            if reason:
                message = f"option language_model is of no use here: {reason}"
                raise OptionError(message)
        try:
            self.start()
        except DataError as error:
            raise OptionError(str(error)) from error

    def scores(
        self, logits: Tensor, lengths: Tensor, features: Sequence[Tensor] = ()
    ) -> list[Window]:
        """Return the likely tokens of each row's frames, and the pauses between words.

        logits: (batch, frames, vocab); lengths: (batch,), the frames that are not
        padding. features: what the logits are of.
        """
        found = likely(logits, lengths, self._written)
        if not (self.request.words and features):
            return [Window(frames, []) for frames in found]
        lie, features_lie = self.grids
        return [
            Window(
                frames,
                pauses_of(
                    self.spelling,
                    sound,
                    torch.from_numpy(frames.best),
                    features_lie,
                    lie,
                ),
            )
            for frames, sound in zip(found, features, strict=True)
        ]

    def start(self, expected: tuple[str, ...] = ()) -> BeamDecoder:
        """Return a decoder for one recording.

        expected: hotwords, beside the request's. Raises DataError if the vocabulary
        cannot spell one.
        """
        names = tuple(dict.fromkeys((*self.request.hotwords, *expected)))
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
    def _is_spaced(self) -> bool:
        return any(" " in letters for letters in self.letters)

    @cached_property
    def _written(self) -> Tensor:
        return torch.tensor([bool(letters) for letters in self.letters])

    @cached_property
    def _lexicon(self) -> Lexicon:
        model = self.request.language_model
        return Lexicon(model.words if model else (), self._spelled)

    def _spelled(self, text: str) -> str:
        """Return a text in the vocabulary's letters; "" if it lacks some of them.

        Punctuation may be lacking, and accents: é is an e then.
        """
        letters = self.spelling.letters(text)
        return "" if letters != text and self._lacking(text) else letters

    def _lacking(self, text: str) -> list[str]:
        """Return the letters and digits of a text that the vocabulary cannot spell."""
        return sorted(filter(str.isalnum, self.spelling.normalize(text).dropped))

    def _fusion(self, names: tuple[str, ...]) -> Fusion:
        """Return what texts gain with hotwords; DataError if one has no spelling."""
        spellings = []
        for name in names:
            spelling = self._spelled(" ".join(name.split()))
            if not spelling:
                lacking = ", ".join(map(repr, self._lacking(name))) or "all of it"
                message = (
                    f"the recognizer cannot spell the hotword {name!r}: its vocabulary "
                    f"lacks {lacking}; write it as the model would"
                )
                raise DataError(message)
            spellings.append(spelling)
        request = self.request
        has_model = request.language_model is not None
        weights = Weights(
            language_model=_or(request.lm_weight, LM_WEIGHT),
            word=_or(request.word_bonus, WORD_BONUS if has_model else 0.0),
            unknown_letter=_UNKNOWN_LETTER,
        )
        bonus = HOTWORD_WEIGHT_BESIDE_MODEL if has_model else HOTWORD_WEIGHT
        return Fusion(
            self.letters,
            weights,
            language_model=request.language_model,
            lexicon=self._lexicon,
            hotwords=Hotwords(
                spellings,
                _or(request.hotword_weight, bonus),
                " " if self._is_spaced else "",
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
        self._path = ForcedPath(decoding.blank, decoding.space)
        self._timeline = Timeline(decoding.grids[0])

    def feed(self, scores: Window, kept: slice, spans: Sequence[Span]) -> None:
        """Take the frames of the next window."""
        frames = scores.frames[kept]
        self._timeline.feed(len(frames.best), kept, spans, scores.pauses)
        self._advance(frames)

    def silence(self) -> None:
        """Take note of a window without speech: a blank."""
        self._timeline.silence()
        self._advance(silent(self._decoding.blank))

    def finish(self) -> Hypothesis:
        """Return the likeliest text, and what else is asked for."""
        decoding, request = self._decoding, self._decoding.request
        texts = self._texts()
        best = texts[0]
        found = Hypothesis(best.text)
        if request.words:
            path, probabilities = map(torch.from_numpy, self._path.finish(best.tokens))
            found = read(
                decoding.spelling, decoding.blank, path, probabilities, self._timeline
            )
        if request.alternatives:
            alternatives = (Alternative(each.text, each.share) for each in texts)
            found = replace(found, alternatives=tuple(alternatives))
        if request.best_path:
            tokens = collapse(torch.cat(self._best), decoding.blank)
            found = replace(found, best_path=decoding.spelling.decode(tokens))
        return found

    def _advance(self, frames: Frames) -> None:
        self._search.advance(frames)
        if self._decoding.request.words:
            self._path.feed(frames)
            self._path.tell(self._search.likeliest(), self._search.sure)
        if self._decoding.request.best_path:
            self._best.append(torch.from_numpy(frames.best))

    def _texts(self) -> list[_Text]:
        """Return the texts that were found, the likeliest first."""
        letters = self._decoding.letters
        found: dict[str, tuple[list[int], float]] = {}
        for tokens, score in self._search.texts():
            spelled = " ".join("".join(letters[token] for token in tokens).split())
            first, share = found.get(spelled, (tokens, 0.0))
            found[spelled] = first, share + math.exp(score)
        everything = sum(share for _, share in found.values())
        texts = sorted(found.values(), key=lambda each: each[1], reverse=True)
        decode = self._decoding.spelling.decode
        return [
            _Text(decode(tokens), tokens, share / everything)
            for tokens, share in texts[: self._decoding.request.alternatives or 1]
        ]


class _Text(NamedTuple):
    """A text that was found."""

    text: str
    tokens: list[int]
    share: float
    "Its probability among all that were found."


def _or(wanted: float | None, otherwise: float) -> float:
    return otherwise if wanted is None else wanted
