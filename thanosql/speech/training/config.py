"""The settings of a training, as one value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """The settings of a training; the options of BUILD MODEL have their defaults."""

    epochs: int
    batch_size: int  # utterances
    learning_rate: float  # the peak
    warmup: float  # share of the training in which the rate rises to the peak
    weight_decay: float
    max_grad_norm: float
    freeze_feature_encoder: bool  # fresh weights are trained all the same
    speed_perturbation: bool
    noise_perturbation: bool
    spec_augment: Literal["auto"] | bool
    feature_cache: int  # bytes
    precision: str  # auto, fp32, bf16, fp16
    device: str  # auto, cpu, cuda, cuda:1
    seed: int
    gradient_checkpointing: bool  # saves memory by computing activations twice
    max_steps: int | None  # ends the training before `epochs` do
    time_limit: float | None  # seconds; the rate falls to 0 towards it
