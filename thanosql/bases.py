"""The bases that have a name here: name in, where it lies and what it is out.

Ids, sizes and licences were written down from memory, where no hub could be reached to
look them up: check a licence at its source before you depend on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Base:
    """A model to start from, by a short name."""

    source: str
    "Its id on the hub, or `package:` and a directory inside this package."
    language: str
    "ISO 639-1 code of what it transcribes; empty where it must be trained first."
    parameters: int
    "Roughly, in all."
    license: str
    "As its authors state it; empty where they do not."


BASES: Mapping[str, Base] = {
    # Ready to transcribe, and to be trained further
    "Wav2Vec2En": Base("facebook/wav2vec2-base-960h", "en", 94_000_000, "Apache-2.0"),
    "Wav2Vec2Ko": Base(
        "kresnik/wav2vec2-large-xlsr-korean", "ko", 317_000_000, "Apache-2.0"
    ),
    "HubertEn": Base("facebook/hubert-large-ls960-ft", "en", 316_000_000, "Apache-2.0"),
    "WavLMEn": Base(
        "patrickvonplaten/wavlm-libri-clean-100h-base-plus", "en", 94_000_000, ""
    ),
    "Data2VecEn": Base(
        "facebook/data2vec-audio-base-960h", "en", 93_000_000, "Apache-2.0"
    ),
    "SEWEn": Base("asapp/sew-tiny-100k-ft-ls100h", "en", 41_000_000, "Apache-2.0"),
    "ParakeetEn": Base("nvidia/parakeet-ctc-1.1b", "en", 1_060_000_000, "CC-BY-4.0"),
    # Trained on speech without transcripts: a vocabulary comes from the user's texts
    "Wav2Vec2Base": Base("facebook/wav2vec2-base", "", 94_000_000, "Apache-2.0"),
    "XLSRBase": Base("facebook/wav2vec2-xls-r-300m", "", 315_000_000, "Apache-2.0"),
    "HubertBase": Base("facebook/hubert-base-ls960", "", 94_000_000, "Apache-2.0"),
    "WavLMBase": Base("microsoft/wavlm-base-plus", "", 94_000_000, "CC-BY-SA-3.0"),
    "Wav2Vec2BertBase": Base("facebook/w2v-bert-2.0", "", 580_000_000, "MIT"),
    # Nothing but a shape: all weights are fresh
    "ParakeetTiny": Base("package:sample/parakeet_tiny", "", 1_450_000, "Apache-2.0"),
}
