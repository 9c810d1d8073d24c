"""Assemble a model: its files and tensors in, a Recognizer out.

Code that comes with a model is never run.
"""

from __future__ import annotations

import json
import math
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers.initialization import no_init_weights

from thanosql.errors import (
    DataError,
    Error,
    ModelNotFoundError,
    NotSupportedError,
    OperationalError,
)
from thanosql.speech.decoding.spelling import BLANK, UNKNOWN, WORD_DELIMITER, vocabulary
from thanosql.speech.opening import encoders
from thanosql.speech.opening.directory import read_json
from thanosql.speech.opening.weights import draw_by_fan_in
from thanosql.speech.recognizers import families
from thanosql.speech.recognizers.modeling_encoder_ctc import EncoderCTCConfig
from thanosql.speech.recognizers.recognizer import quiet
from thanosql.speech.recognizers.refused import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor
    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        PreTrainedTokenizerBase,
    )

    from thanosql.speech.recognizers.recognizer import Recognizer

# Any, since transformers is only partly annotated.
_hf: Any = transformers

_LAYER = re.compile(r"\.layers\.\d+\.")
_VOCABULARIES = ("vocab.json", "tokenizer.json", "vocab.txt", "*.model")


@dataclass(frozen=True, slots=True)
class Skeleton:
    """A model without its weights."""

    model: PreTrainedModel
    'On the device "meta", where it takes no memory.'
    tokenizer: PreTrainedTokenizerBase
    feature_extractor: Any
    generation_config: Any
    "A GenerationConfig of transformers; None if the directory has none."


def assemble(
    directory: Path,
    state: Mapping[str, Tensor],
    texts: Callable[[], Iterable[str]],
    *,
    ctc: bool = False,
) -> Recognizer:
    """Return the recognizer of a base.

    directory: has the base's files. state: its weights; empty if it has none. texts:
    returns transcripts for a new vocabulary; called only if the base has no vocabulary
    or no last layer. ctc: of a model that writes, take the encoder alone, and give it
    such a vocabulary and a CTC head.
    """
    where = str(directory)
    config = _config(directory, where, ctc=ctc)
    whole = has_vocabulary(directory) and has_last_layer(config, state)
    takes_encoder = ctc and not _is_ctc(directory, where)
    if takes_encoder:
        with damaged(where):
            whole, state = False, encoders.encoder_state(state)
    bare = _skeleton(config, directory, where, None if whole else texts)
    recognizer = fill(bare, state, where, new_last_layer=not whole)
    recognizer.head_first = takes_encoder and bool(state)
    return recognizer


def has_vocabulary(directory: Path) -> bool:
    """Return whether the directory has the files of a tokenizer."""
    return any(any(directory.glob(name)) for name in _VOCABULARIES)


def has_last_layer(config: PreTrainedConfig, state: Mapping[str, Tensor]) -> bool:
    """Return whether the weights need no new layer that scores the vocabulary."""
    last = _last_layers(config)
    return not last or any(key.startswith(last) for key in state)


def skeleton(directory: Path, where: str) -> Skeleton:
    """Return the model of a directory's files, without weights.

    where: the directory's name for errors.
    """
    return _skeleton(_config(directory, where), directory, where, None)


def _skeleton(
    config: PreTrainedConfig,
    directory: Path,
    where: str,
    texts: Callable[[], Iterable[str]] | None,
) -> Skeleton:
    """Return a skeleton. texts: as in `assemble`; None if there is a vocabulary."""
    made = None if texts is None else vocabulary(texts())
    with damaged(f"the tokenizer of {where}"), quiet():
        if made is None:
            _check_vocabulary(directory, config)
            tokenizer = _hf.AutoTokenizer.from_pretrained(
                directory, trust_remote_code=False
            )
        else:
            tokenizer = _tokenizer(made)
            _set_vocabulary(config, len(made))
    with damaged(f"'config.json' in {where}"), quiet():
        model = _built(config, "meta")
    with damaged(f"the feature extractor of {where}"), quiet():
        extractor = _feature_extractor(directory, config)
    generation = None
    if (directory / "generation_config.json").is_file():
        with damaged(f"'generation_config.json' in {where}"), quiet():
            generation = _hf.GenerationConfig.from_pretrained(directory)
    return Skeleton(model, tokenizer, extractor, generation)


def fill(
    bare: Skeleton,
    state: Mapping[str, Tensor],
    where: str,
    *,
    new_last_layer: bool = False,
) -> Recognizer:
    """Return the recognizer of a skeleton and its weights; missing ones are drawn.

    new_last_layer: draw the last layer anew even if `state` has it, since its weights
    are for another vocabulary.
    """
    with damaged(f"'config.json' in {where}"):
        _check_size(bare.model, state)
    with damaged(where), quiet():
        model = None if new_last_layer else _filled(bare.model, state)
        fresh: frozenset[str] = frozenset()
        if model is None:
            model, fresh = _model(
                bare.model.config, state, new_last_layer=new_last_layer
            )
        draw_by_fan_in(model, fresh)
        model.train(mode=False)
        if bare.generation_config is not None:
            model.generation_config = bare.generation_config
        recognizer = families.recognizer(
            model, bare.tokenizer, bare.feature_extractor, fresh
        )
        recognizer.check(where)
    return recognizer


def _is_ctc(directory: Path, where: str) -> bool:
    """Return whether the directory's own class is a CTC one."""
    content = read_json(directory / "config.json", f"'config.json' in {where}")
    return content.get("model_type") in families.CTC_CLASSES


def _config(directory: Path, where: str, *, ctc: bool = False) -> PreTrainedConfig:
    """Return the config of a model that can be opened; ctc: as in `assemble`."""
    with damaged(f"'config.json' in {where}"):
        takes_encoder = ctc and not _is_ctc(directory, where)
        config = _read_config(directory, where, takes_encoder=takes_encoder)
        if takes_encoder:
            config = encoders.ctc_config(config, where)
    needed = families.family(families.model_class(config)).needed_files
    for what, forms in needed.items():
        if not any(all((directory / n).is_file() for n in form) for form in forms):
            files = " or ".join(" and ".join(form) for form in forms)
            message = (
                f"{where} has no {what} ({files}): put that of the model that it was "
                "made from beside its config.json"
            )
            raise DataError(message)
    return config


def _last_layers(config: PreTrainedConfig) -> tuple[str, ...]:
    return families.family(families.model_class(config)).last_layers


def _read_config(
    directory: Path, where: str, *, takes_encoder: bool
) -> PreTrainedConfig:
    path = directory / "config.json"
    if not path.is_file():
        message = f"{where} is no model directory: it has no config.json"
        raise ModelNotFoundError(message)
    content = read_json(path, f"'config.json' in {where}")
    kind = content.get("model_type")
    refused = REFUSED.get(str(kind))
    is_taken = takes_encoder and kind in encoders.TAKEN
    if refused is not None and not is_taken:
        message = (
            f"{where} holds a model of type {kind!r}, which is not run here: {refused}"
        )
        raise NotSupportedError(message)
    if kind not in families.CLASSES and not is_taken:
        message = (
            f"{where} holds a model of type {kind!r}, which is no recognizer that is "
            f"known here; those are {', '.join(sorted(families.CLASSES))}"
        )
        raise NotSupportedError(message)
    if kind == EncoderCTCConfig.model_type:
        inner = content.get("encoder_config")
        inner = inner.get("model_type") if isinstance(inner, dict) else None
        if inner not in encoders.NESTED:
            message = (
                f"{where} holds an encoder of type {inner!r}, which is not run here; "
                f"those are {', '.join(encoders.NESTED)}"
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
    # A config could name a kernel on the hub, which is somebody else's compiled code.
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
    """Set the size of a new vocabulary in the config, and token 0 as its blank."""
    config.vocab_size, config.pad_token_id = size, 0
    if hasattr(config, "blank_token_id"):  # transducers tell it from padding
        config.blank_token_id = 0
    encoder: Any = getattr(config, "encoder_config", None)
    if config.model_type == "granite_speech5_ctc":  # predicts tokens half-way, too
        encoder.vocab_size = size


def _check_vocabulary(directory: Path, config: PreTrainedConfig) -> None:
    """Raise ValueError if a vocabulary has far more tokens than the model has outputs.

    Reading a large tokenizer is slow, so this comes first. A few more are allowed: a
    tokenizer may add special tokens beyond the outputs.
    """
    path = directory / "vocab.json"
    if path.is_file():
        tokens = len(read_json(path, "vocab.json"))
        if tokens > config.vocab_size + 1_000:
            message = (
                f"vocab.json has {tokens:,} tokens for {config.vocab_size} outputs"
            )
            raise ValueError(message)


def _built(config: PreTrainedConfig, device: str) -> PreTrainedModel:
    """Return the model that a config describes, without drawing its parameters.

    On "meta" it takes no memory; a config could describe a model of any size.
    """
    # A few parameters are drawn all the same. fork_rng keeps that from changing the
    # random numbers of a training.
    with (
        torch.device(device),
        no_init_weights(),
        torch.random.fork_rng(devices=[]),
    ):
        return families.model_class(config)(config)


def _check_size(skeleton: PreTrainedModel, state: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a model far larger than its weights or than the memory."""
    tensors = (*skeleton.parameters(), *skeleton.buffers())
    described = sum(tensor.numel() for tensor in tensors)
    held = sum(tensor.numel() for tensor in state.values())
    # A last layer for a new vocabulary, or an adapter, may be missing in the weights.
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


def _filled(
    skeleton: PreTrainedModel, state: Mapping[str, Tensor]
) -> PreTrainedModel | None:
    """Return the skeleton with its weights; None if names, shapes or types differ.

    A tied parameter, which is another one's by config.json, is not among the weights.
    This is enough for stored models. `_model` also handles weights that are missing,
    renamed or of another type, as in published checkpoints, but takes three times as
    long.
    """
    own = skeleton.state_dict()
    untyped: Any = skeleton
    tied = untyped.all_tied_weights_keys  # names -> of whom they are
    if own.keys() - tied.keys() != state.keys() or any(
        (tensor.shape, tensor.dtype) != (own[name].shape, own[name].dtype)
        for name, tensor in state.items()
    ):
        return None
    model = skeleton
    if any(name not in own for name, _ in skeleton.named_buffers()):
        model = _built(skeleton.config, "cpu")  # computes buffers that are not saved
    model.load_state_dict(state, strict=not tied, assign=True)
    model.tie_weights()
    return model


def _model(
    config: PreTrainedConfig, state: Mapping[str, Tensor], *, new_last_layer: bool
) -> tuple[PreTrainedModel, frozenset[str]]:
    """Return the model with the tensors of `state`, and the names of missing ones."""
    kind: Any = families.model_class(config)
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
    last = {name for name in parameters if name.startswith(_last_layers(config))}
    absent = set(info["missing_keys"])
    for key, held, described in info["mismatched_keys"]:
        if not (new_last_layer and key in last):
            message = (
                f"{key} is of shape {tuple(held)} in the weights, of "
                f"{tuple(described)} by config.json"
            )
            raise ValueError(message)
        absent.add(key)
    # Other unused weights are usual, such as those of self-supervised training.
    unused = sorted(filter(_LAYER.search, info["unexpected_keys"]))
    if unused:
        message = f"the weights {unused[0]} are of a layer that config.json lacks"
        raise ValueError(message)
    if not parameters - absent - last:
        message = f"none of its {len(state)} tensors is one of {kind.__name__}"
        raise ValueError(message)
    return model, frozenset(parameters & absent | (last if new_last_layer else set()))


def _parameters(model: PreTrainedModel) -> set[str]:
    # Both names of a tied parameter count.
    return {name for name, _ in model.named_parameters(remove_duplicate=False)}


def _feature_extractor(directory: Path, config: PreTrainedConfig) -> Any:
    """Return the model's own feature extractor, or the default of its type."""
    names = ("preprocessor_config.json", "processor_config.json")
    if any((directory / name).is_file() for name in names):
        return _hf.AutoFeatureExtractor.from_pretrained(
            directory, trust_remote_code=False
        )
    return families.default_feature_extractor(config)


@contextmanager
def damaged(where: str) -> Iterator[None]:
    """Turn an exception in the block into an error that names `where`.

    It is a DataError, but OperationalError for too little memory and NotSupportedError
    for a missing package. Our own errors pass unchanged.
    """
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
        # A damaged file can make safetensors or transformers raise anything.
        reason = " ".join(str(error).split()).partition(" Exception raised from")[0]
        if not isinstance(error, ValueError | RuntimeError | OSError):
            reason = f"{type(error).__name__}: {reason}"
        message = f"{where} cannot be opened as a model: {reason:.500}"
        raise DataError(message) from error
