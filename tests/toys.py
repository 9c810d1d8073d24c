"""Toys to train: recordings of tones, and models small enough to learn them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
import torch
from transformers import ParakeetCTCConfig, ParakeetEncoderConfig, Wav2Vec2Config

from thanosql.speech.opening.opening import open_base
from thanosql.speech.training.train import TrainingConfig

SECONDS_A_LETTER = 0.16


@pytest.fixture
def one_thread():
    """Have torch use one thread; sharing out a toy's work costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recording(text, seed=0):
    """Return a WAV file in which each letter of `text` is a tone of its own."""
    time = np.arange(int(SECONDS_A_LETTER * 16_000)) / 16_000
    tones = [
        np.sin(2 * np.pi * (300 + 250 * (ord(letter) - ord("a"))) * time)
        * np.hanning(len(time))
        for letter in text
    ]
    noise = np.random.default_rng(seed).normal(0, 0.01, len(tones) * len(time))
    file = io.BytesIO()
    soundfile.write(file, 0.5 * np.concatenate(tones) + noise, 16_000, format="WAV")
    return file.getvalue()


def spoken(count, letters="abcd", seed=0):
    """Return rows (audio, text): `count` words of two to four letters."""
    random = np.random.default_rng(seed)
    words = [
        "".join(random.choice(list(letters), size=random.integers(2, 5)))
        for _ in range(count)
    ]
    return [(recording(word, seed=i), word) for i, word in enumerate(words)]


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


def config(**changes):
    """Return a TrainingConfig for toys, with some settings changed."""
    settings = {
        "epochs": 1,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup": 0.1,
        "weight_decay": 0.01,
        "max_grad_norm": 1.0,
        "freeze_feature_encoder": False,
        "speed_perturbation": False,
        "noise_perturbation": False,
        "spec_augment": "auto",
        "feature_cache": 10**8,
        "precision": "auto",
        "device": "cpu",
        "seed": 0,
        "gradient_checkpointing": False,
        "max_steps": None,
        "time_limit": None,
    }
    return TrainingConfig(**settings | changes)
