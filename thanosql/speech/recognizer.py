"""The files and tensors of a model in, a Recognizer out: waveform to text and back.

A Recognizer is a CTC model of transformers with its tokenizer and feature extractor.
No code that comes with a model is ever run.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.initialization import no_init_weights
from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CTC_MAPPING_NAMES
from transformers.utils import logging as transformers_logging

from thanosql.errors import (
    AudioError,
    DataError,
    Error,
    ModelNotFoundError,
    NotSupportedError,
    OperationalError,
)
from thanosql.speech.audio import SAMPLE_RATE
from thanosql.speech.directory import read_json
from thanosql.speech.text import BLANK, UNKNOWN, WORD_DELIMITER, Spelling, vocabulary
from thanosql.speech.weights import draw_by_fan_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

# transformers is annotated in part only: what it leaves open goes by Any.
_hf: Any = transformers
_logging: Any = transformers_logging

# The layer that scores the vocabulary, in every CTC class of transformers; Granite's
# is one with a layer half-way, under whose name it is saved.
LAST_LAYERS = ("lm_head.", "ctc_head.", "encoder.out.")
_LAYER = re.compile(r"\.layers\.\d+\.")
_VOCABULARIES = ("vocab.json", "tokenizer.json", "vocab.txt", "*.model")


@dataclass(eq=False)
class Recognizer:
    """A CTC model with all it takes to go from a waveform to text and back."""

    model: PreTrainedModel
    "Any that AutoModelForCTC gives, in evaluation mode when opened."
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: Any
    "A SequenceFeatureExtractor of transformers, for 16 kHz."
    fresh: frozenset[str]
    "Names of the parameters that were newly drawn, not loaded."

    @property
    def blank(self) -> int:
        """The token id that stands for no letter in CTC."""
        return int(self.model.config.pad_token_id)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return torch.device(self.model.device)

    @cached_property
    def mel_bins(self) -> int:
        """How many mel bands a frame of its features has; 0 where they are samples.

        What a model takes as one frame may be several in a row, or have their deltas.
        """
        if self.model.main_input_name == "input_values":
            return 0
        extractor = self.feature_extractor
        return int(getattr(extractor, "num_mel_bins", extractor.feature_size))

    @cached_property
    def spelling(self) -> Spelling:
        """What the model can spell."""
        return Spelling(self.tokenizer, self.model.config.vocab_size)

    @cached_property
    def int8(self) -> Recognizer:
        """The same, multiplying in int8, for inference on a CPU."""
        from thanosql.speech.quantization import quantized  # it imports this module

        return quantized(self)

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the target ids of a normalized text."""
        return self.spelling.encode(text)

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return what the model takes of one utterance, with no padding.

        waveform: (samples,), mono, 16 kHz; result: (samples,) or (frames, mels),
        float32 on the CPU. Raises AudioError where it is too short to give a frame.
        """
        try:
            inputs = self.feature_extractor(
                waveform,
                sampling_rate=SAMPLE_RATE,
                return_tensors="pt",
                return_attention_mask=True,
            )
        except (ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
            raise _too_short(waveform) from error
        values = inputs[self.model.main_input_name][0]
        if "attention_mask" in inputs:
            values = values[: int(inputs["attention_mask"][0].sum())]
        if len(values) == 0 or not bool(torch.isfinite(values).all()):
            raise _too_short(waveform)
        features: Tensor = values.to(torch.float32)
        return features

    def save(self, directory: Path) -> None:
        """Write a model directory that AutoModelForCTC and AutoProcessor open."""
        with _quiet():
            self.model.save_pretrained(directory)
            if isinstance(self.feature_extractor, _hf.Wav2Vec2FeatureExtractor):
                # AutoProcessor knows not of itself which one data2vec needs.
                processor = _hf.Wav2Vec2Processor(
                    self.feature_extractor, self.tokenizer
                )
                processor.save_pretrained(directory)
            self.tokenizer.save_pretrained(directory)
            self.feature_extractor.save_pretrained(directory)


def assemble(
    directory: Path,
    state: Mapping[str, Tensor],
    texts: Callable[[], Iterable[str]] | None,
) -> Recognizer:
    """Return the recognizer of a model directory.

    directory: its files but the weights; state: the weights, empty for a bare config.
    `texts` gives transcripts to make a vocabulary from where there is none; None says
    that the model must be whole.
    """
    where = str(directory) if texts is not None else "the stored model"
    with damaged(f"'config.json' in {where}"):
        config = _config(directory, where)
        has_tokenizer = any(any(directory.glob(name)) for name in _VOCABULARIES)
    whole = has_tokenizer and any(key.startswith(LAST_LAYERS) for key in state)
    if not whole and texts is None:
        message = f"{where} is damaged: it has no tokenizer, or no weights for it"
        raise DataError(message)
    made = None if whole or texts is None else vocabulary(texts())
    with damaged(f"the tokenizer of {where}"), _quiet():
        if made is None:
            _check_vocabulary(directory, config)
            tokenizer = _hf.AutoTokenizer.from_pretrained(
                directory, trust_remote_code=False
            )
        else:
            tokenizer = _tokenizer(made)
            _set_vocabulary(config, len(made))
    with damaged(f"'config.json' in {where}"), _quiet():
        _check_size(config, state)
    with damaged(where), _quiet():
        model, fresh = _model(config, state, new_last_layer=made is not None)
        if fresh and texts is None:
            message = f"{where} is damaged: it has no weights for {min(fresh)}"
            raise DataError(message)
        draw_by_fan_in(model, fresh)
        model.train(mode=False)
    with damaged(f"the feature extractor of {where}"), _quiet():
        extractor = _feature_extractor(directory, config)
    with damaged(where):
        recognizer = Recognizer(model, tokenizer, extractor, fresh)
        _check(recognizer, where)
    return recognizer


def _config(directory: Path, where: str) -> PreTrainedConfig:
    path = directory / "config.json"
    if not path.is_file():
        message = f"{where} is no model directory: it has no config.json"
        raise ModelNotFoundError(message)
    content = read_json(path, f"'config.json' in {where}")
    kind = content.get("model_type")
    if kind not in MODEL_FOR_CTC_MAPPING_NAMES:
        message = (
            f"{where} holds a model of type {kind!r}, which has no CTC head; types "
            f"that have: {', '.join(sorted(MODEL_FOR_CTC_MAPPING_NAMES))}"
        )
        raise NotSupportedError(message)
    if "quantization_config" in content:
        message = (
            f"{where} holds quantized weights, in a format of its own; use the model "
            "they were made of"
        )
        raise NotSupportedError(message)
    config: PreTrainedConfig = _hf.AutoConfig.from_pretrained(
        directory, trust_remote_code=False
    )
    # It could name a kernel on the hub, which is code that somebody else compiled.
    config._attn_implementation = None
    return config


def _tokenizer(tokens: Mapping[str, int]) -> PreTrainedTokenizerBase:
    with TemporaryDirectory(prefix="thanosql-") as temporary:
        path = Path(temporary, "vocab.json")
        path.write_text(json.dumps(tokens, ensure_ascii=False), encoding="utf-8")
        tokenizer: PreTrainedTokenizerBase = _hf.Wav2Vec2CTCTokenizer(
            str(path),
            unk_token=UNKNOWN,
            pad_token=BLANK,
            word_delimiter_token=WORD_DELIMITER,
            bos_token=None,
            eos_token=None,
        )
    return tokenizer


def _set_vocabulary(config: PreTrainedConfig, size: int) -> None:
    """Tell the configuration of a vocabulary made here: its size, blank 0."""
    config.vocab_size, config.pad_token_id = size, 0
    encoder: Any = getattr(config, "encoder_config", None)
    if hasattr(encoder, "vocab_size"):  # Granite's encoder predicts tokens half-way
        encoder.vocab_size = size


def _check_vocabulary(directory: Path, config: PreTrainedConfig) -> None:
    """Raise ValueError for far more tokens than outputs: tokenizers are slow to read.

    Tokens that are added may lie beyond the outputs, if nothing is spelled with them.
    """
    path = directory / "vocab.json"
    if path.is_file():
        tokens = len(read_json(path, "vocab.json"))
        if tokens > config.vocab_size + 1_000:
            message = (
                f"vocab.json has {tokens:,} tokens for {config.vocab_size} outputs"
            )
            raise ValueError(message)


def _check_size(config: PreTrainedConfig, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a model beyond its weights, or this machine's memory.

    Built without memory first, since what a configuration describes could take any.
    """
    # Some parameters are drawn all the same, which is to change no training's numbers.
    with (
        torch.device("meta"),
        no_init_weights(),
        torch.random.fork_rng(devices=[]),
    ):
        skeleton = _hf.MODEL_FOR_CTC_MAPPING[type(config)](config)
    tensors = (*skeleton.parameters(), *skeleton.buffers())
    described = sum(tensor.numel() for tensor in tensors)
    held = sum(tensor.numel() for tensor in state.values())
    # Beside those held, a last layer for a new vocabulary or an adapter may be fresh.
    if state and described > 2 * held + 2**26:
        message = (
            f"config.json describes a model of {described:,} values, but the weights "
            f"hold {held:,}"
        )
        raise ValueError(message)
    memory = math.inf
    if hasattr(os, "sysconf"):  # not on Windows
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if 4 * described > memory:
        message = (
            f"config.json describes a model of {4 * described / 1e9:,.1f} GB; this "
            f"machine has {memory / 1e9:,.1f} GB of memory"
        )
        raise ValueError(message)


def _model(
    config: PreTrainedConfig, state: Mapping[str, Tensor], *, new_last_layer: bool
) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the model with the tensors of `state` in it, and what was not there."""
    kind = _hf.MODEL_FOR_CTC_MAPPING[type(config)]
    if not state:
        model = kind(config)
        return model, frozenset(_parameters(model))
    model, info = kind.from_pretrained(
        None,
        config=config,
        state_dict=dict(state),
        dtype=torch.float32,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    parameters = _parameters(model)
    last = {name for name in parameters if name.startswith(LAST_LAYERS)}
    absent = set(info["missing_keys"])
    for key, held, described in info["mismatched_keys"]:
        if not (new_last_layer and key in last):
            message = (
                f"{key} is of shape {tuple(held)} in the weights, of "
                f"{tuple(described)} by config.json"
            )
            raise ValueError(message)
        absent.add(key)
    # Other weights without a place are usual: of self-supervised training, say.
    unused = sorted(filter(_LAYER.search, info["unexpected_keys"]))
    if unused:
        message = f"the weights {unused[0]} are of a layer that config.json lacks"
        raise ValueError(message)
    if not parameters - absent - last:
        message = f"none of its {len(state)} tensors is one of {kind.__name__}"
        raise ValueError(message)
    return model, frozenset(parameters & absent | (last if new_last_layer else set()))


def _parameters(model: PreTrainedModel) -> set[str]:
    # Both names of a tied layer count.
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _feature_extractor(directory: Path, config: PreTrainedConfig) -> Any:
    """Return the model's own feature extractor, or the default of its type."""
    names = ("preprocessor_config.json", "processor_config.json")
    if any((directory / name).is_file() for name in names):
        return _hf.AutoFeatureExtractor.from_pretrained(
            directory, trust_remote_code=False
        )
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


def _check(recognizer: Recognizer, where: str) -> None:
    """Raise where model, tokenizer and feature extractor do not belong together."""
    model, tokenizer = recognizer.model, recognizer.tokenizer
    # Published texts are decoded by the tokenizer's padding token, so that one holds.
    if tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id
    outputs = model.config.vocab_size
    known = set(tokenizer.get_vocab().values())
    spelled = recognizer.spelling.ids
    if model.config.pad_token_id not in range(outputs) or not (
        spelled <= set(range(outputs)) <= known | {model.config.pad_token_id}
    ):
        message = (
            f"{where}: the model has {outputs} outputs, its tokenizer {len(known)} "
            f"tokens up to id {max(known)}, with blank {model.config.pad_token_id}; "
            "they do not belong together"
        )
        raise DataError(message)
    extractor = recognizer.feature_extractor
    gives, takes = extractor.model_input_names[0], model.main_input_name
    if gives != takes or extractor.sampling_rate != SAMPLE_RATE:
        message = (
            f"{where}: the model takes {takes} of {SAMPLE_RATE} Hz audio, its feature "
            f"extractor gives {gives} of {extractor.sampling_rate} Hz audio"
        )
        raise NotSupportedError(message)


def _too_short(waveform: NDArray[np.float32]) -> AudioError:
    message = (
        f"the recording is too short for the model: {len(waveform) / SAMPLE_RATE:.3f} s"
    )
    return AudioError(message)


@contextmanager
def damaged(where: str) -> Iterator[None]:
    """Raise what goes wrong inside the block as DataError, but our own errors."""
    try:
        yield
    except Error:
        raise
    except MemoryError as error:
        message = f"{where} takes more memory than there is: {error}"
        raise OperationalError(message) from error
    except ImportError as error:
        message = f"{where} needs a package that is missing: {error}"
        raise NotSupportedError(message) from error
    except Exception as error:
        # Whatever a damaged file makes safetensors or transformers stumble on.
        reason = " ".join(str(error).split()).partition(" Exception raised from")[0]
        if not isinstance(error, ValueError | RuntimeError | OSError):
            reason = f"{type(error).__name__}: {reason}"
        message = f"{where} cannot be opened as a model: {reason:.500}"
        raise DataError(message) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and the advice of transformers inside the block."""
    verbosity = _logging.get_verbosity()
    bars = _logging.is_progress_bar_enabled()
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()
    try:
        yield
    finally:
        _logging.set_verbosity(verbosity)
        if bars:
            _logging.enable_progress_bar()
