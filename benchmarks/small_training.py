"""How fast is a step of training a small Parakeet on one CPU thread?

The same steps (forward, CTC loss, backward, clipping, AdamW) on noise with targets
drawn at random, of two models with equal weights: one through our forward, one through
transformers' own, padded and masked. Batches of eight: of 5 s each, and of 3 to 6.4 s.
With --full also 16 of one second, and bf16.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from collections.abc import Callable

BATCHES = {
    "8 of 5 s": [500] * 8,
    "8 of 3 to 6.4 s": [300, 350, 420, 480, 520, 560, 600, 640],
}
SHORT = {"16 of 1 s": [100] * 16}
MELS = 80
ENCODER = {
    "hidden_size": 176,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "intermediate_size": 704,
    "subsampling_factor": 4,
    "conv_kernel_size": 9,
    "num_mel_bins": MELS,
    "scale_input": False,
    "dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
}
VOCABULARY = 30


def main() -> None:
    """Print, and perhaps write, the report."""
    options = common.arguments(__doc__)
    import torch

    torch.set_num_threads(1)
    rounds = 10 if options.full else 5
    batches = {**BATCHES, **SHORT} if options.full else BATCHES
    measurements: dict[str, Any] = {}
    ratios, checks = [], {}
    for channels in (64, 32):
        for precision in ("fp32", "bf16") if options.full else ("fp32",):
            for batch, frames in batches.items():
                name = f"{batch}, {channels} channels, {precision}"
                losses, works = contestants(channels, precision, frames)
                for work in works.values():
                    work()
                seconds = common.in_turn(works, rounds)
                audio = sum(frames) / 100
                measurements[name] = {
                    f"{who}_audio_seconds_a_second": [audio / each for each in times]
                    for who, times in seconds.items()
                }
                ratios.append(
                    common.ratio(
                        f"speed of a step to transformers', {name}",
                        seconds["transformers"],
                        seconds["thanosql"],
                        goal=1.0,
                        higher_is_better=True,
                    )
                )
                checks[f"losses of the steps, {name}"] = losses
    common.report(
        options,
        packages=("torch", "transformers"),
        settings={"threads": 1, "encoder": ENCODER, "optimizer": "AdamW, fused"},
        measurements=measurements,
        ratios=ratios,
        checks=checks,
    )


def contestants(
    channels: int, precision: str, frames: list[int]
) -> tuple[dict[str, list[float]], dict[str, Callable[[], None]]]:
    """Return what takes a step each, and the lists that get the losses of steps."""
    import torch
    from transformers import ParakeetCTCConfig, ParakeetForCTC

    from thanosql.speech.recognizers import families
    from thanosql.speech.recognizers.ctc import ctc_loss

    torch.manual_seed(0)
    features = [torch.randn(count, MELS) for count in frames]
    targets = [torch.randint(1, VOCABULARY, (count // 9,)).tolist() for count in frames]
    inputs = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
    ones = [torch.ones(count, dtype=torch.long) for count in frames]
    mask = torch.nn.utils.rnn.pad_sequence(ones, batch_first=True)
    lengths = torch.tensor([-(-count // 4) for count in frames])

    def ours(model: Any) -> Any:
        return families.recognizer(model, None, None).logits(features)

    def theirs(model: Any) -> Any:
        return model(input_features=inputs, attention_mask=mask).logits, lengths

    def step(run: Callable[[Any], Any], model: Any, optimizer: Any, name: str) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits, lengths = run(model)
        loss = ctc_loss(logits, lengths, targets, 0)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses[name].append(round(loss.item(), 4))

    losses: dict[str, list[float]] = {"thanosql": [], "transformers": []}
    works: dict[str, Callable[[], None]] = {}
    for name, run in (("thanosql", ours), ("transformers", theirs)):
        torch.manual_seed(1)
        encoder = {**ENCODER, "subsampling_conv_channels": channels}
        config = ParakeetCTCConfig(
            vocab_size=VOCABULARY, pad_token_id=0, encoder_config=encoder
        )
        model = ParakeetForCTC(config).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        works[name] = partial(step, run, model, optimizer, name)
    return losses, works


if __name__ == "__main__":
    main()
