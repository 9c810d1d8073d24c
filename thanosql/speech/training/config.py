"""How to train."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """How to train; the options of BUILD MODEL hold the defaults."""

    epochs: int
    batch_size: int  # utterances
    learning_rate: float  # the peak
    warmup: float  # share of the steps in which the rate rises to it
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
    gradient_checkpointing: bool  # computes twice, to hold less in memory
    max_steps: int | None  # at most so many, whatever `epochs` says
    time_limit: float | None  # seconds; the rate falls to 0 towards it
