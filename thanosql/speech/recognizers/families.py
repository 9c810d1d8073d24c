"""Choose a model's family: a config or model of transformers in, its recognizer out.

This is the only list of families; `refused.py` lists what belongs to none. A CTC class
without an entry runs by transformers' own forward (`padded.py`).
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES

from thanosql.speech.recognizers.encoder_ctc import EncoderCTCRecognizer
from thanosql.speech.recognizers.modeling_encoder_ctc import (
    EncoderCTCConfig,
    EncoderForCTC,
)
from thanosql.speech.recognizers.moonshine import MoonshineRecognizer
from thanosql.speech.recognizers.omniasr import OmniASRRecognizer
from thanosql.speech.recognizers.padded import PaddedRecognizer
from thanosql.speech.recognizers.parakeet import ParakeetRecognizer
from thanosql.speech.recognizers.transducer import TransducerRecognizer
from thanosql.speech.recognizers.wav2vec2 import Wav2Vec2Recognizer
from thanosql.speech.recognizers.whisper import WhisperRecognizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from thanosql.speech.recognizers.recognizer import Recognizer

# Any, since transformers is only partly annotated.
_hf: Any = transformers

# Older versions of transformers have none.
_TRANSDUCERS: Mapping[str, str] = {
    **getattr(modeling_auto, "MODEL_FOR_RNNT_MAPPING_NAMES", {}),
    **getattr(modeling_auto, "MODEL_FOR_TDT_MAPPING_NAMES", {}),
}
CTC_CLASSES: Mapping[str, str] = {
    **MODEL_FOR_CTC_MAPPING_NAMES,
    EncoderCTCConfig.model_type: EncoderForCTC.__name__,
}
"For each `model_type` of a CTC model's config, the class that is made of it."
CLASSES: Mapping[str, str] = {
    **CTC_CLASSES,
    **_TRANSDUCERS,
    "moonshine": "MoonshineForConditionalGeneration",
    "whisper": "WhisperForConditionalGeneration",
}
"For each `model_type` of a config, the class of transformers that is made of it."

_FAMILIES: Mapping[str, type[Recognizer]] = {
    **dict.fromkeys(Wav2Vec2Recognizer.architectures, Wav2Vec2Recognizer),
    "ParakeetForCTC": ParakeetRecognizer,
    "OmniASRForCTC": OmniASRRecognizer,
    "MoonshineForConditionalGeneration": MoonshineRecognizer,
    "WhisperForConditionalGeneration": WhisperRecognizer,
    **dict.fromkeys(_TRANSDUCERS.values(), TransducerRecognizer),
}


# So that transformers reads such a config without running a file beside it.
_hf.AutoConfig.register(EncoderCTCConfig.model_type, EncoderCTCConfig, exist_ok=True)


def model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """Return the class for a config of a type in CLASSES."""
    if isinstance(config, EncoderCTCConfig):
        return EncoderForCTC
    found: type[PreTrainedModel] = getattr(_hf, CLASSES[config.model_type])
    return found


def family(kind: type[PreTrainedModel]) -> type[Recognizer]:
    """Return the recognizer class for models of a class."""
    if kind is EncoderForCTC:
        return EncoderCTCRecognizer
    # By name, not issubclass: a subclass may compute something else.
    is_known = kind.__module__.partition(".")[0] == "transformers"
    return _FAMILIES.get(kind.__name__ if is_known else "", PaddedRecognizer)


def recognizer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    feature_extractor: Any,
    fresh: frozenset[str] = frozenset(),
) -> Recognizer:
    """Return a recognizer of the model's family, made of the model and its parts.

    fresh: names of the parameters that were drawn at random, not loaded.
    """
    kind = family(type(model))
    return kind(model, tokenizer, feature_extractor, fresh)


def default_feature_extractor(config: PreTrainedConfig) -> Any:
    """Return the feature extractor for a model whose directory has none."""
    if isinstance(config, EncoderCTCConfig):
        config = config.encoder_config
    if config.model_type == "moonshine":
        return _hf.Wav2Vec2FeatureExtractor(do_normalize=False)
    if config.model_type == "wav2vec2-bert":
        # Two frames of filterbanks are stacked into one input.
        bins = config.feature_projection_input_dim // 2
        return _hf.SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins)
    kind: Any = FEATURE_EXTRACTOR_MAPPING[type(config)]
    encoder = getattr(config, "encoder_config", config)
    if not hasattr(encoder, "num_mel_bins"):
        # A model with a group norm over time cannot use a mask: the norm averages over
        # the padding as well.
        norm = getattr(config, "feat_extract_norm", "layer")
        return kind(return_attention_mask=norm == "layer")
    takes_bins = "num_mel_bins" in inspect.signature(kind).parameters
    return kind(
        **{"num_mel_bins" if takes_bins else "feature_size": encoder.num_mel_bins}
    )
