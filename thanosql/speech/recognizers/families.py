"""Which family a model belongs to: a model of transformers in, its recognizer out.

The one list of families. Whatever has no entry runs by its own forward.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import transformers
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING

from thanosql.speech.recognizers.omniasr import OmniASRRecognizer
from thanosql.speech.recognizers.padded import PaddedRecognizer
from thanosql.speech.recognizers.parakeet import ParakeetRecognizer
from thanosql.speech.recognizers.wav2vec2 import Wav2Vec2Recognizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from thanosql.speech.recognizers.ctc import CTCRecognizer

# transformers is annotated in part only: what it leaves open goes by Any.
_hf: Any = transformers

_FAMILIES: Mapping[str, type[CTCRecognizer]] = {
    **dict.fromkeys(Wav2Vec2Recognizer.architectures, Wav2Vec2Recognizer),
    "ParakeetForCTC": ParakeetRecognizer,
    "OmniASRForCTC": OmniASRRecognizer,
}


def recognizer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    feature_extractor: Any,
    fresh: frozenset[str] = frozenset(),
) -> CTCRecognizer:
    """Return the recognizer of a model's family, with all that belongs to the model."""
    kind = type(model)  # not isinstance: a subclass may compute something else
    is_known = kind.__module__.partition(".")[0] == "transformers"
    family = _FAMILIES.get(kind.__name__) if is_known else None
    return (family or PaddedRecognizer)(model, tokenizer, feature_extractor, fresh)


def default_feature_extractor(config: PreTrainedConfig) -> Any:
    """Return the feature extractor of a model type, where a directory brings none."""
    if config.model_type == "wav2vec2-bert":
        # Two frames of filterbanks are stacked into one input.
        bins = config.feature_projection_input_dim // 2
        return _hf.SeamlessM4TFeatureExtractor(feature_size=bins, num_mel_bins=bins)
    kind: Any = FEATURE_EXTRACTOR_MAPPING[type(config)]
    encoder = getattr(config, "encoder_config", None)
    if encoder is None:
        # With group norm over time, padding cannot be told from silence: no mask.
        norm = getattr(config, "feat_extract_norm", "layer")
        return kind(return_attention_mask=norm == "layer")
    takes_bins = "num_mel_bins" in inspect.signature(kind).parameters
    return kind(
        **{"num_mel_bins" if takes_bins else "feature_size": encoder.num_mel_bins}
    )
