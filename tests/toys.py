"""Models to try things on, so small that they open, run and learn in no time."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import tokenizers
import tokenizers.decoders
import tokenizers.models
import tokenizers.pre_tokenizers
import torch
import transformers
from transformers import (
    AutoModelForCTC,
    GraniteSpeech5CTCConfig,
    LasrCTCConfig,
    MoonshineConfig,
    MoonshineForConditionalGeneration,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    SEWConfig,
    SEWDConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import families
from thanosql.speech.recognizers.draws import Draws
from thanosql.speech.recording import Recording
from thanosql.speech.transcription import transcribe
from thanosql.statements import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence
    from pathlib import Path

    from thanosql.speech.results import Transcription

# Every type of bare config that a base may be, by transformers' name of it.
CONVOLUTIONS = {
    "conv_dim": [16, 16],
    "conv_kernel": [10, 8],
    "conv_stride": [8, 8],
    "num_feat_extract_layers": 2,
}
SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
POSITIONS = {"num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
WAV2VEC2 = {**SMALL, **CONVOLUTIONS, **POSITIONS}
KINDS = {
    "wav2vec2": WAV2VEC2,
    "hubert": {**WAV2VEC2, "feat_extract_norm": "layer"},
    "wavlm": {**WAV2VEC2, "num_buckets": 8},
    "data2vec-audio": WAV2VEC2,
    "sew": {**WAV2VEC2, "squeeze_factor": 2},
    "sew-d": {**WAV2VEC2, "squeeze_factor": 2, "position_buckets": 8},
    "unispeech": WAV2VEC2,
    "unispeech-sat": WAV2VEC2,
    "wav2vec2-conformer": WAV2VEC2,
    "wav2vec2-bert": SMALL,
    "parakeet_ctc": {
        "encoder_config": {
            **SMALL,
            "subsampling_factor": 4,
            "subsampling_conv_channels": 8,
        }
    },
    "lasr_ctc": {
        "encoder_config": {**SMALL, "num_mel_bins": 64, "conv_kernel_size": 9}
    },
    "omniasr_ctc": {
        "audio_config": {**SMALL, **POSITIONS, **CONVOLUTIONS},
    },
    "granite_speech5_ctc": {"encoder_config": {**SMALL, "num_hidden_layers": 2}},
}

# Likewise of transducers; the type of the encoder where it must be named.
TRANSDUCERS = {
    "parakeet_tdt": "",
    "parakeet_rnnt": "",
    "nemotron_asr_streaming": "",
    "nemotron3_5_asr": "nemotron_asr_streaming_encoder",
}
TRANSDUCER_KINDS = {
    kind: {
        "encoder_config": {
            **SMALL,
            **({"model_type": encoder} if encoder else {}),
            "subsampling_factor": 4,
            "subsampling_conv_channels": 8,
        },
        "decoder_hidden_size": 16,
    }
    for kind, encoder in TRANSDUCERS.items()
}


# Every architecture with logits worth comparing, and nothing drawn at random.
VOCABULARY = 11
MELS = 16
SIZES = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "initializer_range": 0.3,  # logits well apart from nothing
}
TINY = {
    **SIZES,
    "vocab_size": VOCABULARY,
    "apply_spec_augment": False,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    **dict.fromkeys(
        (
            "hidden_dropout",
            "attention_dropout",
            "activation_dropout",
            "feat_proj_dropout",
            "final_dropout",
            "conformer_conv_dropout",
            "layerdrop",
        ),
        0.0,
    ),
}
CONV = {"conv_dim": (16,) * 7}
SEW_CONV = {"conv_dim": (16,) * 13}
ADAPTER = {"add_adapter": True, "output_hidden_size": 24, "num_adapter_layers": 2}
BERT = {**TINY, "feature_projection_input_dim": MELS, "output_hidden_size": 24}
NO_DROPOUT = dict.fromkeys(
    (
        "dropout",
        "dropout_positions",
        "attention_dropout",
        "activation_dropout",
        "layerdrop",
    ),
    0.0,
)
CONFORMER = {
    **SIZES,
    **NO_DROPOUT,
    "num_mel_bins": MELS,
    "subsampling_conv_channels": 8,
    "conv_kernel_size": 7,
}


def _ctc(config_class, **encoder):
    return config_class(vocab_size=VOCABULARY, encoder_config={**CONFORMER, **encoder})


CONFIGS = {
    "wav2vec2": lambda: Wav2Vec2Config(**TINY, **CONV),
    "wavlm": lambda: WavLMConfig(**TINY, **CONV),
    "wavlm, stable": lambda: WavLMConfig(
        **TINY, **CONV, do_stable_layer_norm=True, feat_extract_norm="layer"
    ),
    "wavlm, adapter": lambda: WavLMConfig(**TINY, **CONV, **ADAPTER),
    "sew": lambda: SEWConfig(**TINY, **SEW_CONV),
    "sew-d": lambda: SEWDConfig(**TINY, **SEW_CONV),
    "conformer": lambda: Wav2Vec2ConformerConfig(**TINY, **CONV),
    "wav2vec2-bert": lambda: Wav2Vec2BertConfig(**BERT),
    "wav2vec2-bert, rotary": lambda: Wav2Vec2BertConfig(
        **BERT, position_embeddings_type="rotary"
    ),
    "wav2vec2-bert, relative": lambda: Wav2Vec2BertConfig(
        **BERT, position_embeddings_type="relative"
    ),
    "wav2vec2-bert, adapter": lambda: Wav2Vec2BertConfig(**{**BERT, **ADAPTER}),
    "parakeet": lambda: _ctc(ParakeetCTCConfig, subsampling_factor=4),
    "parakeet, factor 8": lambda: _ctc(ParakeetCTCConfig, subsampling_factor=8),
    "lasr": lambda: _ctc(LasrCTCConfig, num_attention_heads=2),
    "omniasr": lambda: transformers.OmniASRCTCConfig(
        vocab_size=VOCABULARY,
        initializer_range=0.3,
        audio_config={
            **SIZES,
            **CONV,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            "hidden_dropout": 0.0,
            "activation_dropout": 0.0,
            "layerdrop": 0.0,
        },
    ),
    "granite": lambda: GraniteSpeech5CTCConfig(
        vocab_size=VOCABULARY,
        encoder_config={
            **SIZES,
            "vocab_size": VOCABULARY,
            "num_mel_bins": MELS // 4,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "context_size": 8,
        },
    ),
}


def draws(seed: int, count: int) -> Draws:
    """Return the generators of a step of so many utterances."""
    return Draws.of(seed, 1, 0, range(1, count + 1))


def write_config(directory: Path, kind: str = "wav2vec2", **changes: object) -> Path:
    """Return the directory, with nothing but the config of a type of model in it."""
    directory.mkdir(exist_ok=True)
    settings = {**(KINDS | TRANSDUCER_KINDS)[kind], **changes}
    transformers.AutoConfig.for_model(kind, **settings).save_pretrained(directory)
    return directory


def fine_tuned(directory: Path, **settings: object) -> Path:
    """Return the directory, with a fine-tuned-looking model of random weights in it.

    A wav2vec 2.0 with group norm, the kind whose text changes when it is padded.
    """
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4}
    for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ'":
        vocabulary[letter] = len(vocabulary)
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(directory / "vocab.json"))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(directory)
    torch.manual_seed(7)
    transformers.Wav2Vec2ForCTC(
        Wav2Vec2Config(
            **{
                "vocab_size": len(vocabulary),
                "hidden_size": 32,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "intermediate_size": 64,
                "conv_dim": (32, 32, 32),
                "conv_kernel": (10, 8, 4),
                "conv_stride": (5, 8, 8),
                "feat_extract_norm": "group",
                "num_conv_pos_embeddings": 16,
                "num_conv_pos_embedding_groups": 2,
                "initializer_range": 0.5,
                "pad_token_id": 0,
                **settings,
            }
        )
    ).save_pretrained(directory)
    return directory


def parakeet(directory, **encoder):
    """Return a recognizer of fresh weights that learns tones in a few seconds."""
    settings = {
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "subsampling_factor": 4,
        "subsampling_conv_channels": 16,
        "conv_kernel_size": 5,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "layerdrop": 0.0,
        **encoder,
    }
    config = ParakeetEncoderConfig(**settings)
    ParakeetCTCConfig(encoder_config=config.to_dict()).save_pretrained(directory)
    return open_base(str(directory), lambda: ["abcd"])


def wav2vec2(directory, **settings):
    """Return a recognizer of fresh weights, dropout and SpecAugment as by default."""
    Wav2Vec2Config(
        **{
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "conv_dim": (16, 16, 32),
            "conv_kernel": (10, 8, 8),
            "conv_stride": (5, 8, 8),
            "feat_extract_norm": "layer",
            "do_stable_layer_norm": True,
            "num_conv_pos_embeddings": 8,
            "num_conv_pos_embedding_groups": 2,
            **settings,
        }
    ).save_pretrained(directory)
    return open_base(str(directory), lambda: ["abcd"])


def whisper(directory: Path, languages: Sequence[str] = (), **settings: object) -> Path:
    """Return the directory, with a Whisper of fresh weights that hears two seconds.

    Its tokens are single bytes. languages: what it knows; English only without any.
    """
    special = ["<|endoftext|>", "<|startoftranscript|>"]
    special += [f"<|{code}|>" for code in languages or ("en",)]
    special += ["<|translate|>", "<|transcribe|>", "<|startofprev|>", "<|nospeech|>"]
    special.append("<|notimestamps|>")
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*letters, *special])}
    bytes_only = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    bytes_only.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False
    )
    bytes_only.decoder = tokenizers.decoders.ByteLevel()
    bytes_only.add_special_tokens(special)
    directory.mkdir(exist_ok=True)
    tokenizer = transformers.WhisperTokenizer(
        tokenizer_object=bytes_only,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.save_pretrained(directory)
    extractor = WhisperFeatureExtractor(feature_size=20, chunk_length=2)
    extractor.save_pretrained(directory)
    end, start = vocabulary["<|endoftext|>"], vocabulary["<|startoftranscript|>"]
    tokens = {
        "decoder_start_token_id": start,
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(
        WhisperConfig(
            **{
                "vocab_size": len(vocabulary),
                "num_mel_bins": 20,
                "d_model": 32,
                "encoder_layers": 1,
                "decoder_layers": 2,
                "encoder_attention_heads": 2,
                "decoder_attention_heads": 2,
                "encoder_ffn_dim": 64,
                "decoder_ffn_dim": 64,
                "max_source_positions": 100,
                "max_target_positions": 48,
                "init_std": 0.2,  # scores that differ
                **tokens,
                **settings,
            }
        )
    )
    generation: dict[str, object] = {
        "max_length": 40,
        "suppress_tokens": [vocabulary[token] for token in special[1:]],
        "begin_suppress_tokens": [end],
        "no_timestamps_token_id": vocabulary["<|notimestamps|>"],
        "prev_sot_token_id": vocabulary["<|startofprev|>"],
        "is_multilingual": bool(languages),
    }
    if languages:
        names = [f"<|{code}|>" for code in languages]
        generation["lang_to_id"] = {name: vocabulary[name] for name in names}
        generation["task_to_id"] = {
            task: vocabulary[f"<|{task}|>"] for task in ("translate", "transcribe")
        }
    model.generation_config = transformers.GenerationConfig(**tokens, **generation)
    model.save_pretrained(directory)
    return directory


def moonshine(directory: Path, **settings: object) -> Path:
    """Return the directory, with a Moonshine of fresh weights in it.

    Its tokenizer is of Moonshine's form: it puts a space before a text itself, and
    spells what it has no token for in bytes.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["\u2581", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    bytes_below = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, [], unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    bytes_below.normalizer = tokenizers.normalizers.Sequence(
        [
            tokenizers.normalizers.Prepend("\u2581"),
            tokenizers.normalizers.Replace(" ", "\u2581"),
        ]
    )
    bytes_below.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace("\u2581", " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    bytes_below.add_special_tokens(["<unk>", "<s>", "</s>"])
    directory.mkdir(exist_ok=True)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=bytes_below,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
    ).save_pretrained(directory)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=False, return_attention_mask=True
    ).save_pretrained(directory)
    torch.manual_seed(0)
    model = MoonshineForConditionalGeneration(
        MoonshineConfig(
            **{
                "vocab_size": len(vocabulary),
                "hidden_size": 32,
                "intermediate_size": 64,
                "encoder_num_hidden_layers": 1,
                "decoder_num_hidden_layers": 2,
                "encoder_num_attention_heads": 4,
                "decoder_num_attention_heads": 4,
                "max_position_embeddings": 48,
                "initializer_range": 0.2,  # scores that differ
                "pad_token_id": 2,
                **settings,
            }
        )
    )
    model.generation_config = transformers.GenerationConfig(
        bos_token_id=1,
        decoder_start_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        max_length=40,
        suppress_tokens=[0, 1, *range(3, 259)],  # no parts of characters
    )
    model.save_pretrained(directory)
    return directory


def transducer(kind, seed=0, blank_bias=0.0):
    """Return a recognizer of nothing but a tiny transducer that writes random texts.

    blank_bias: is added to the blank's scores, so that fewer tokens are written.
    """
    encoder = {**CONFORMER, "subsampling_factor": 4}
    if TRANSDUCERS[kind]:
        encoder["model_type"] = TRANSDUCERS[kind]
    config = transformers.AutoConfig.for_model(
        kind,
        encoder_config=encoder,
        vocab_size=VOCABULARY,
        blank_token_id=3,
        decoder_hidden_size=12,
    )
    torch.manual_seed(seed)
    model = families.model_class(config)(config).eval()
    with torch.no_grad():
        for parameter in (*model.decoder.parameters(), *model.joint.parameters()):
            parameter.copy_(torch.randn(parameter.shape))
        model.decoder.decoder_projector.weight *= 3  # what was written counts
        model.joint.head.bias[3] += blank_bias
    return families.recognizer(model, None, None)


def config(**changes):
    """Return options of a training for toys, with some of them changed."""
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "freeze_feature_encoder": False,
        "device": "cpu",
    }
    return BuildOptions(**settings | changes)


def build(name, **settings):
    """Return a recognizer that is nothing but a tiny model of fresh weights."""
    config = CONFIGS[name]()
    for key, value in settings.items():
        setattr(config, key, value)
    torch.manual_seed(0)
    model = AutoModelForCTC.from_config(config).eval()
    with torch.no_grad():  # a batch norm that does something
        for buffer_name, buffer in model.named_buffers():
            if "running_mean" in buffer_name:
                buffer += 0.3 * torch.randn(buffer.shape)
    return families.recognizer(model, None, None)


def inputs(recognizer, seed=0):
    torch.manual_seed(seed)
    if recognizer.model.main_input_name == "input_values":
        return [torch.randn(n) for n in (5_000, 9_999, 3_217, 9_800)]
    return [torch.randn(n, MELS) for n in (40, 81, 33, 76)]


def transcriptions(
    recognizer, audio: Iterable[object], **options
) -> Generator[list[Transcription], None, None]:
    """Yield what `transcribe` makes of recordings, by the values of a column.

    The empty lists between are left out.
    """
    with closing(transcribe(recognizer, map(Recording, audio), **options)) as batches:
        yield from filter(None, batches)


def reading_transducer(directory: Path, kind: str, **changes: object) -> Path:
    """Return the directory, with a config of a transducer that learns tones in it."""
    encoder = {
        **NO_DROPOUT,
        "hidden_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "subsampling_factor": 4,
        "subsampling_conv_channels": 16,
        "conv_kernel_size": 5,
        **changes,
    }
    return write_config(
        directory,
        kind,
        encoder_config=encoder,
        decoder_hidden_size=32,
        num_decoder_layers=1,
    )


# How a model of every type that writes token by token is made in a directory.
WRITERS = {"moonshine": moonshine, "whisper": whisper}
