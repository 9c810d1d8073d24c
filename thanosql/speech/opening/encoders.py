"""Take the encoder out of a model that writes: files in, a CTC model's parts out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import transformers

from thanosql.errors import NotSupportedError
from thanosql.speech.recognizers.modeling_encoder_ctc import EncoderCTCConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedConfig

# Any, since transformers is only partly annotated.
_hf: Any = transformers

# How the names of an encoder's weights begin, in the classes with one.
_PREFIXES = ("model.encoder.", "encoder.")
_WHOLE = ("moonshine", "speech_to_text", "whisper")
_ENCODERS = ("nemotron_asr_streaming_encoder",)
TAKEN = (
    *_WHOLE,
    "canary",
    "nemotron3_5_asr",
    "nemotron_asr_streaming",
    "parakeet_rnnt",
    "parakeet_tdt",
)
"The `model_type` of each config whose encoder can be taken."
NESTED = (*_WHOLE, *_ENCODERS)
"That of each config that may be in an `EncoderCTCConfig`."


def ctc_config(config: PreTrainedConfig, where: str) -> PreTrainedConfig:
    """Return the config of a CTC model with the encoder of a model.

    The vocabulary is not set yet. where: the model's name for errors. Raises
    NotSupportedError for a model whose encoder is not to be had.
    """
    encoder: Any = getattr(config, "encoder_config", config)
    if encoder.model_type == "parakeet_encoder":
        made: PreTrainedConfig = _hf.ParakeetCTCConfig(encoder_config=encoder.to_dict())
        return made
    if config.model_type in _WHOLE:
        return EncoderCTCConfig(encoder_config=config.to_dict())
    if encoder.model_type in _ENCODERS:
        return EncoderCTCConfig(encoder_config=encoder.to_dict())
    message = (
        f"{where} holds a model of type {config.model_type!r}, whose encoder cannot be "
        f"given a CTC head here; those of {', '.join(sorted(TAKEN))} can"
    )
    raise NotSupportedError(message)


def encoder_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a model's encoder, by their names in a CTC model.

    Empty if there are no weights; a ValueError if there are, but no encoder's.
    """
    found = {
        f"encoder.{name.removeprefix(prefix)}": tensor
        for prefix in _PREFIXES
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
    if state and not found:
        message = f"no weights of an encoder are among them, only {min(state)!r}, ..."
        raise ValueError(message)
    return found
