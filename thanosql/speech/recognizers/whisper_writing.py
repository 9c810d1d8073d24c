"""Whisper's texts: the encoder's frames in; what the decoder writes of them out.

All utterances are written together; one that repeats itself is written again.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from thanosql.speech.decoding.search import Written, beam_search, write
from thanosql.speech.decoding.windows_text import WindowText, is_spaced
from thanosql.speech.recognizers.whisper_decoder import WhisperSteps
from thanosql.speech.recognizers.whisper_words import Told, WhisperWords

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from thanosql.speech.decoding.subwords import Subwords
    from thanosql.speech.recognizers.whisper_settings import Dictation, WhisperSettings


@dataclass(frozen=True)
class Writer:
    """Writes the texts of utterances."""

    model: PreTrainedModel
    settings: WhisperSettings
    spelling: Subwords

    def texts(
        self,
        frames: Sequence[Tensor],
        dictation: Dictation,
        temperatures: Sequence[float],
        features: Sequence[Tensor] = (),
    ) -> list[WindowText]:
        """Return the text of each utterance.

        frames: the encoder's output of each. temperatures: at which a text that repeats
        itself is drawn again, one after the other. features: the log-mels of each; they
        are needed if words are asked for.
        """
        device = frames[0].device
        steps = WhisperSteps(self.model, frames)
        languages, probabilities = self._languages(steps, dictation, len(frames))
        prefixes = [self.settings.prefix(dictation, each) for each in languages]
        before = torch.tensor(prefixes, device=device)
        rules = self.settings.rules(before.shape[1], device)
        steps.begin(range(len(frames)))
        if dictation.beam_size > 1:
            found = beam_search(steps, before, rules, dictation.beam_size)
        else:
            found = write(steps, before, rules)

        def window_text(row: int, written: Written, *, again: bool) -> WindowText:
            language = languages[row]
            return WindowText(
                self.spelling.decode(written.tokens),
                written.log_probability,
                written.scored,
                self.settings.codes.get(language or -1, "en"),
                probabilities[row],
                again,
            )

        texts = [window_text(i, each, again=False) for i, each in enumerate(found)]
        looping = [i for i, text in enumerate(texts) if text.loops]
        # Seeded by what the window was first heard as, so that no other draw counts.
        seeds = {i: zlib.crc32(repr(found[i].tokens).encode()) for i in looping}
        for temperature in temperatures:
            if not looping:
                break
            steps.begin(looping)
            drawn = write(
                steps,
                before[looping],
                rules,
                temperature,
                [torch.Generator().manual_seed(seeds[i]) for i in looping],
            )
            for i, each in zip(looping, drawn, strict=True):
                found[i] = each
                texts[i] = window_text(i, each, again=True)
            looping = [i for i in looping if texts[i].loops]
        if not dictation.words:
            return texts

        def with_words(row: int, text: WindowText) -> WindowText:
            spaced = dictation.into_english or is_spaced(text.language)
            told = Told(text.text, found[row].tokens, prefixes[row], spaced=spaced)
            words = self._words.words(steps, row, features[row], told, rules.never)
            return replace(text, words=words)

        return [with_words(row, text) for row, text in enumerate(texts)]

    @cached_property
    def _words(self) -> WhisperWords:
        return WhisperWords(self.model, self.spelling)

    def _languages(
        self, steps: WhisperSteps, dictation: Dictation, count: int
    ) -> tuple[list[int | None], list[float | None]]:
        """Return each utterance's language token, and its probability if it is found.

        steps: with one hypothesis for each utterance. The language is the likeliest of
        those tokens after <|startoftranscript|> (Radford et al. 2022, section 2.3).
        """
        if not self.settings.languages or dictation.language is not None:
            return [dictation.language] * count, [None] * count
        device = self.model.device
        start = torch.full((count, 1), self.settings.start, device=device)
        tokens = torch.tensor(list(self.settings.languages.values()), device=device)
        shares = steps.advance(start)[:, tokens].softmax(-1)
        best, places = shares.max(-1)
        return tokens[places].tolist(), best.tolist()
