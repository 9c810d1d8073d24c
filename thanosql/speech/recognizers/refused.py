"""Speech classes of transformers that are not run here: type in, the reason out.

With the families of `families.py` they are all of `AutoModelForSpeechSeq2Seq`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_NO_TEXT = "it writes no text of what it hears: it"
_DECODER = "it needs a decoder that is not run here yet, and"
_LANGUAGE_MODEL = (
    "it needs the chat template of its processor, and a language model of "
    "{} parameters that reads the sound as a part of its prompt"
)
_BILLIONS = _LANGUAGE_MODEL.format("billions of")
_SEAMLESS = f"{_DECODER} to be told which of a hundred languages to write"
_SENTENCEPIECE = f"{_DECODER} the package sentencepiece for its tokenizer"
_MISTRAL = "the package mistral-common for its tokenizer"

REFUSED: Mapping[str, str] = {
    "canary": f"{_DECODER} a prompt of languages and punctuation, which the chat "
    "template of its processor spells",
    "cohere_asr": f"{_DECODER} a prompt of language and punctuation, which its "
    "processor spells",
    "dia": f"{_NO_TEXT} speaks a text",
    "fun_asr_nano": _LANGUAGE_MODEL.format("600 million"),
    "granite_speech": _BILLIONS,
    "granite_speech_plus": _BILLIONS,
    "kyutai_speech_to_text": "it needs an audio codec, and a language model of "
    "billions of parameters that goes on with the codec's tokens step by step",
    "moonshine_streaming": f"{_DECODER} an encoder of frames of 5 ms in sliding "
    "windows; Moonshine without streaming is run",
    "omniasr": f"{_BILLIONS}; OmniASR's CTC models are run",
    "pop2piano": f"{_NO_TEXT} writes notes for a piano",
    "qwen3_asr": _BILLIONS,
    "seamless_m4t": _SEAMLESS,
    "seamless_m4t_v2": _SEAMLESS,
    "speech-encoder-decoder": "it needs a decoder for each of the many kinds of "
    "language model that may be joined to an encoder",
    "speech_to_text": _SENTENCEPIECE,
    "speecht5": _SENTENCEPIECE,
    "vibevoice": f"{_NO_TEXT} speaks a text",
    "vibevoice_asr": _BILLIONS,
    "voxtral": f"{_BILLIONS}, and {_MISTRAL}",
    "voxtral_realtime": "it needs a language model of billions of parameters that "
    f"writes in step with the sound, and {_MISTRAL}",
}
"For each `model_type` of a config, what it would need, or why it cannot be one."
