"""The bases that have a name here: name in, where its files are and what it is out.

Ids, sizes, data and licences of the hub's models were compared with stored copies of
their model cards and file lists, not with the hub itself; docs/models.md says what that
leaves open. The figures of those in the package were counted and measured here, and the
sizes of Whisper counted by its configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LEARNING_RATE = 1e-4
"Of AdamW, where neither the statement nor the base says one."


@dataclass(frozen=True, slots=True)
class Base:
    """A model to start from, by a short name."""

    source: str
    "Its id on the hub, or `package:` and a directory inside this package."
    language: str
    """What it transcribes: an ISO 639-1 code, or MULTILINGUAL.

    Empty where it must be trained first.
    """
    parameters: int
    "Their number, rounded."
    license: str
    "As its authors state it; empty if they state none."
    data: str
    "What it was trained on."
    wer: float | None = None
    "Word error rate before it is trained further; docs/models.md says on what."
    learning_rate: float = LEARNING_RATE
    "Default of BUILD and FIT, for it and for models trained from it."

    @property
    def directory(self) -> Path | None:
        """Its folder in this package; None for one of the hub's."""
        if not self.source.startswith("package:"):
            return None
        package = Path(str(resources.files("thanosql")))
        return package / self.source.removeprefix("package:")

    @property
    def bytes(self) -> int | None:
        """Size of its files in this package; None for one of the hub's."""
        if self.directory is None:
            return None
        return sum(path.stat().st_size for path in self.directory.iterdir())


MULTILINGUAL = "multilingual"
"It knows many languages, and finds out which one it hears."

# Whisper is fine-tuned at a fortieth of the highest rate that it was trained at
# (Radford et al. 2022, table 17), as one of its authors advises.
_WHISPER_RATES = {
    "tiny": 3.75e-5,
    "base": 2.5e-5,
    "small": 1.25e-5,
    "large": 5e-6,
}
_680_000_HOURS = "680,000 h of the web with subtitles"
_5_000_000_HOURS = "5,000,000 h of the web, 1,000,000 with subtitles"
_LIBRISPEECH = "LibriSpeech, 960 h"
_LIBRI_LIGHT = "Libri-Light, 60,000 h, untranscribed"
_94_000_HOURS = "94,000 h of English, untranscribed"

NGRAM = "NGram"
"The base of language models, and their architecture; it is no model of recordings."

BASES: Mapping[str, Base] = {
    # Come with the package, ready to transcribe
    "WhisperTinyEn": Base(
        "package:catalog/whisper_tiny_en",
        "en",
        37_760_000,
        "MIT",
        "438,000 h of the web with English subtitles",
        wer=0.065,
        learning_rate=_WHISPER_RATES["tiny"],
    ),
    "TinyEn": Base(
        "package:catalog/tiny_en",
        "en",
        5_760_000,
        "Apache-2.0",
        "synthesized English; LibriSpeech and LJ Speech, 1.6 h",
        wer=0.574,
        learning_rate=5e-4,
    ),
    # Ready to transcribe, and to be trained further
    "Wav2Vec2En": Base(
        "facebook/wav2vec2-base-960h", "en", 94_000_000, "Apache-2.0", _LIBRISPEECH
    ),
    "Wav2Vec2Ko": Base(
        "kresnik/wav2vec2-large-xlsr-korean",
        "ko",
        317_000_000,
        "Apache-2.0",
        "Zeroth-Korean, 52 h",
    ),
    "HubertEn": Base(
        "facebook/hubert-large-ls960-ft",
        "en",
        316_000_000,
        "Apache-2.0",
        f"{_LIBRI_LIGHT}; {_LIBRISPEECH}",
    ),
    "WavLMEn": Base(
        "patrickvonplaten/wavlm-libri-clean-100h-base-plus",
        "en",
        94_000_000,
        "",
        f"{_94_000_HOURS}; LibriSpeech, 100 h",
    ),
    "Data2VecEn": Base(
        "facebook/data2vec-audio-base-960h",
        "en",
        93_000_000,
        "Apache-2.0",
        _LIBRISPEECH,
    ),
    "SEWEn": Base(
        "asapp/sew-tiny-100k-ft-ls100h",
        "en",
        41_000_000,
        "Apache-2.0",
        "LibriSpeech, 100 of 960 h transcribed",
    ),
    "ParakeetEn": Base(
        "nvidia/parakeet-ctc-1.1b",
        "en",
        1_060_000_000,
        "CC-BY-4.0",
        "64,000 h of English",
    ),
    # Whisper: ready to transcribe, to translate into English, and to be trained further
    "WhisperTiny": Base(
        "openai/whisper-tiny",
        MULTILINGUAL,
        37_760_000,
        "Apache-2.0",
        _680_000_HOURS,
        learning_rate=_WHISPER_RATES["tiny"],
    ),
    "WhisperBase": Base(
        "openai/whisper-base",
        MULTILINGUAL,
        72_590_000,
        "Apache-2.0",
        _680_000_HOURS,
        learning_rate=_WHISPER_RATES["base"],
    ),
    "WhisperSmall": Base(
        "openai/whisper-small",
        MULTILINGUAL,
        241_730_000,
        "Apache-2.0",
        _680_000_HOURS,
        learning_rate=_WHISPER_RATES["small"],
    ),
    "WhisperSmallKo": Base(
        "seastar105/whisper-small-komixv2",
        "ko",
        241_730_000,
        "",
        f"{_680_000_HOURS}; Korean of AI Hub",
        learning_rate=_WHISPER_RATES["small"],
    ),
    "WhisperLargeV3": Base(
        "openai/whisper-large-v3",
        MULTILINGUAL,
        1_543_490_000,
        "Apache-2.0",
        _5_000_000_HOURS,
        learning_rate=_WHISPER_RATES["large"],
    ),
    "WhisperLargeV3Turbo": Base(
        "openai/whisper-large-v3-turbo",
        MULTILINGUAL,
        808_880_000,
        "MIT",
        _5_000_000_HOURS,
        learning_rate=_WHISPER_RATES["large"],
    ),
    # Trained on speech without transcripts: a vocabulary comes from the user's texts
    "Wav2Vec2Base": Base(
        "facebook/wav2vec2-base",
        "",
        95_000_000,
        "Apache-2.0",
        f"{_LIBRISPEECH}, untranscribed",
    ),
    "XLSRBase": Base(
        "facebook/wav2vec2-xls-r-300m",
        "",
        315_000_000,
        "Apache-2.0",
        "128 languages, 436,000 h, untranscribed",
    ),
    "HubertBase": Base(
        "facebook/hubert-base-ls960",
        "",
        94_000_000,
        "Apache-2.0",
        f"{_LIBRISPEECH}, untranscribed",
    ),
    "WavLMBase": Base(
        "microsoft/wavlm-base-plus", "", 94_000_000, "CC-BY-SA-3.0", _94_000_HOURS
    ),
    "Wav2Vec2BertBase": Base(
        "facebook/w2v-bert-2.0",
        "",
        580_000_000,
        "MIT",
        "over 143 languages, 4,500,000 h, untranscribed",
    ),
    # A config without weights: all are fresh
    "ParakeetTiny": Base(
        "package:catalog/parakeet_tiny", "", 1_450_000, "Apache-2.0", "nothing yet"
    ),
    # No model of recordings: a language model, counted from the user's texts
    NGRAM: Base("n-grams of a text column", "", 0, "", "nothing yet"),
}


def find(name: str) -> Base | None:
    """Return the base of that name, in any case, or None."""
    named = {known.casefold(): base for known, base in BASES.items()}
    return named.get(name.casefold())
