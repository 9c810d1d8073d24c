"""Settings that hold during a training and are undone after it: context managers."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from thanosql.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedModel

    from thanosql.speech.recognizers.recognizer import Recognizer
    from thanosql.speech.training.utterances import Utterances
    from thanosql.statements import BuildOptions

LITTLE = 3600  # seconds; on less, the encoder of a model that writes stays as it is
_CPU = torch.device("cpu")
# The sizes that are usual in transformers' configs.
_MASKS = {"mask_time_prob": 0.05, "mask_time_length": 10, "mask_time_min_masks": 2}


@contextmanager
def seeded(
    seed: int, epoch: int = 0, device: torch.device = _CPU, rank: int = 0
) -> Iterator[None]:
    """Seed torch's and numpy's global generators; restore their states after the block.

    Dropout, and some models of transformers, draw from them. They are seeded anew for
    each epoch, so numbers that the caller draws between two epochs change nothing.
    rank: of the process, where several train: each draws dropout of its own.
    """
    mixed = mixed_seed(seed, epoch, *([rank] if rank else []))
    state = np.random.get_state()
    with torch.random.fork_rng([device.index] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(mixed)
        if device.type == "cuda":
            torch.cuda.default_generators[device.index].manual_seed(mixed)
        np.random.seed(mixed)
        try:
            yield
        finally:
            np.random.set_state(state)


def mixed_seed(*numbers: int) -> int:
    """Return a seed below 2**32 made of all; (1, 2) and (2, 1) give different ones."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def freezes_encoder(
    recognizer: Recognizer, utterances: Utterances, options: BuildOptions
) -> bool:
    """Return whether the encoder stays as it is, which `auto` leaves to the rows.

    An adapter is of the encoder, too: it has too few weights to spoil it on few rows.
    """
    if options.freeze_encoder == "auto":
        if recognizer.adapter is not None:
            return False
        return recognizer.writes and sum(utterances.seconds) < LITTLE
    return options.freeze_encoder


@contextmanager
def frozen(
    recognizer: Recognizer, *, feature_encoder: bool, encoder: bool
) -> Iterator[None]:
    """Freeze the loaded weights of parts of the model in the block.

    Freshly drawn weights are never frozen: they would stay noise. A model without a
    feature encoder has none to freeze.
    """
    part = recognizer.feature_encoder if feature_encoder else None
    inside = set() if part is None else set(part.parameters())
    held = [
        parameter
        for name, parameter in recognizer.model.named_parameters()
        if (parameter in inside or (encoder and recognizer.encodes(name)))
        and name not in recognizer.fresh
        and parameter.requires_grad
    ]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)


@contextmanager
def spec_augmented(
    recognizer: Recognizer, choice: Literal["auto"] | bool
) -> Iterator[None]:
    """Switch SpecAugment inside the model on or off; "auto" leaves it to the config.

    If `choice` is True and the config has no masks, `_MASKS` are used. Exception: if
    the features are log-mels, True switches it off inside the model, because then the
    training loop masks the features instead (`spec_augment.mask_log_mels`).
    """
    config: Any = recognizer.model.config
    settings: dict[str, Any] = {}
    if choice != "auto":
        own = choice and not recognizer.mel_bins
        settings["apply_spec_augment"] = own
        probabilities = ("mask_time_prob", "mask_feature_prob")
        if own and not any(getattr(config, name, 0) for name in probabilities):
            settings |= _MASKS
    before = {name: getattr(config, name) for name in settings if hasattr(config, name)}
    for name, value in settings.items():
        setattr(config, name, value)
    try:
        yield
    finally:
        for name in settings:
            if name in before:
                setattr(config, name, before[name])
            else:
                delattr(config, name)


@contextmanager
def gradient_checkpointing(model: PreTrainedModel, enabled: bool) -> Iterator[None]:
    """Let the model recompute activations in the backward pass, which saves memory.

    Raises OptionError for a model that cannot.
    """
    if enabled and not model.supports_gradient_checkpointing:
        message = (
            f"gradient_checkpointing is not to be had with {type(model).__name__}; "
            "leave it out, and use a smaller batch_size if memory is short"
        )
        raise OptionError(message)
    untyped: Any = model
    # transformers 5 renamed it from "gradient" to "activation".
    name = "activation" if hasattr(model, "is_activation_checkpointing") else "gradient"
    if enabled:
        getattr(untyped, f"{name}_checkpointing_enable")({"use_reentrant": False})
    try:
        yield
    finally:
        if enabled:
            getattr(untyped, f"{name}_checkpointing_disable")()
