"""Train small models alone and in two processes: names in, what differs out.

One process imports torch and forks those that train; a line of JSON a model tells what
was found.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path

import torch

torch.set_num_threads(1)  # before a fork there must be no pool of threads

from tones import spoken  # noqa: E402
from toys import NO_DROPOUT as ENCODER_WITHOUT_DROPOUT  # noqa: E402
from toys import config, moonshine, parakeet, wav2vec2, whisper, write_config  # noqa: E402

from thanosql.errors import TrainingError  # noqa: E402
from thanosql.speech.opening.opening import open_base  # noqa: E402
from thanosql.speech.peers import Seat  # noqa: E402
from thanosql.speech.recognizers import adapter  # noqa: E402
from thanosql.speech.training.examination import examine  # noqa: E402
from thanosql.speech.training.parallel import ALONE, joined  # noqa: E402
from thanosql.speech.training.train import train  # noqa: E402
from thanosql.speech.training.utterances import Utterances  # noqa: E402

NO_DROPOUT = dict.fromkeys(
    (
        "hidden_dropout",
        "attention_dropout",
        "activation_dropout",
        "feat_proj_dropout",
        "feat_quantizer_dropout",
        "final_dropout",
        "conformer_conv_dropout",
        "layerdrop",
    ),
    0.0,
)
ENCODER = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "subsampling_factor": 4,
    "subsampling_conv_channels": 8,
    **ENCODER_WITHOUT_DROPOUT,
}


def bare(kind, **changes):
    def make(directory):
        return open_base(str(write_config(directory, kind, **changes)), lambda: ["ab"])

    return make


def ready(make, **settings):
    def made(directory):
        return open_base(str(make(directory, **settings)), list)

    return made


def encoder_of(make):
    """Return a function that makes a CTC model of a model's encoder."""

    def made(directory):
        recognizer = make(directory)
        recognizer.save(directory)
        return open_base(str(directory), lambda: ["ab"], ctc=True)

    return made


MODELS = {
    # What each is to show, and options of its training.
    "wav2vec2": (  # masks and LayerDrop
        lambda d: wav2vec2(
            d,
            **{**NO_DROPOUT, "layerdrop": 0.3},
            mask_time_prob=0.3,
            mask_time_length=2,
        ),
        {},
    ),
    "parakeet": (parakeet, {"spec_augment": True}),  # batch norms, unpadded
    "whisper": (ready(whisper), {"freeze_encoder": False}),  # weighed by tokens
    "moonshine": (ready(moonshine), {"freeze_encoder": False}),
    "lasr": (  # batch norms, padded
        bare("lasr_ctc", encoder_config={**ENCODER, "num_mel_bins": 64}),
        {"spec_augment": True},
    ),
    "conformer": (bare("wav2vec2-conformer", **NO_DROPOUT), {}),  # an utterance each
    "hubert": (bare("hubert", **NO_DROPOUT, conv_pos_batch_norm=True), {}),
    "transducer": (bare("parakeet_tdt", encoder_config=ENCODER), {}),
    # Which ones are drawn otherwise than by transformers: so these are all.
    "layers dropped": (
        bare(
            "lasr_ctc", encoder_config={**ENCODER, "num_mel_bins": 64, "layerdrop": 1}
        ),
        {},
    ),
    "checkpointing": (parakeet, {"gradient_checkpointing": True}),
    # Their heads are trained first, in each process by itself.
    "whisper's encoder": (encoder_of(ready(whisper)), {}),
    "transducer's encoder": (
        # A bias before a batch norm has no gradient, and a trained head shows what
        # noise makes of it.
        encoder_of(
            bare("parakeet_tdt", encoder_config={**ENCODER, "convolution_bias": False})
        ),
        {"freeze_encoder": False},
    ),
}


def adapted(make):
    """Return a function that makes a model and gives it an adapter to train."""

    def made(directory):
        recognizer = make(directory)
        layers = adapter.projections(recognizer.model)
        recognizer.adapter = adapter.add(recognizer.model, layers, rank=3)
        return recognizer

    return made


ADAPTED = {
    "parakeet, adapted": (adapted(parakeet), {"spec_augment": True}),
    "whisper, adapted": (adapted(ready(whisper)), {"freeze_encoder": True}),
    # In most steps nothing is left to adapt, for all processes alike,
    "wav2vec2, adapted": (
        adapted(lambda d: wav2vec2(d, **{**NO_DROPOUT, "layerdrop": 0.8})),
        {},
    ),
    # or for one of them, since transformers draws which layers are dropped.
    "w2v-bert, adapted": (
        adapted(bare("wav2vec2-bert", **{**NO_DROPOUT, "layerdrop": 0.5})),
        {},
    ),
}
MODELS |= ADAPTED


def opened(name, directory):
    torch.manual_seed(1)
    return MODELS[name][0](directory)


def learned(name, recognizer, group):
    """Return the results of two epochs, and the weights after them."""
    options = MODELS[name][1]
    rows = spoken(12, letters="ab")
    utterances = examine(recognizer, rows, None).utterances
    # Nine in batches of four: the last batch is of one, and one process has none of it.
    settings = config(epochs=2, batch_size=4, learning_rate=3e-3, **options)
    results = []
    with suppress(TrainingError):  # too short a training to teach it to speak
        results.extend(
            train(
                recognizer,
                rows,
                Utterances(utterances[:9]),
                Utterances(utterances[9:]),
                settings,
                None,
                group=group,
            )
        )
    found = [
        [each.train_loss, each.validation_loss, each.wer, each.cer, each.audio_seconds]
        for each in results
    ]
    return found, recognizer.model.state_dict()


def forked(work):
    """Run `work` in a child; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def tell(name, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def alone():
        recognizer = opened(name, folder / name)
        torch.save(learned(name, recognizer, ALONE), folder / "alone")

    def together(rank):
        # Before it joins: of several processes, transformers lets only the first save.
        recognizer = opened(name, folder / f"{name}{rank}")
        with joined(Seat(rank, 2, "127.0.0.1", port), torch.device("cpu")) as group:
            torch.save(learned(name, recognizer, group), folder / f"{rank}")

    for each in ("alone", "0", "1"):
        (folder / each).unlink(missing_ok=True)
    children = [forked(alone), *(forked(lambda r=r: together(r)) for r in (0, 1))]
    codes = [os.waitpid(child, 0)[1] for child in children]
    if any(codes):
        return {"model": name, "codes": codes}
    (one, weights), (first, mine), (second, theirs) = (
        torch.load(folder / each) for each in ("alone", "0", "1")
    )
    began = opened(name, folder / f"{name}2").model.state_dict()
    return {
        "model": name,
        "codes": codes,
        "alone": one,
        "trained": sorted(
            {n.split(".")[-1] for n in mine if not torch.equal(mine[n], began[n])}
        ),
        "together": [first, second],
        "are_equal": all(torch.equal(mine[n], theirs[n]) for n in mine),
        # Of a weight without any gradient, AdamW makes steps of the rounding noise.
        "share_apart": float(
            torch.cat([(weights[n] - mine[n]).abs().flatten() > 1e-3 for n in mine])
            .double()
            .mean()
        ),
    }


def main(folder, *names):
    for name in names:
        sys.stdout.write(json.dumps(tell(name, Path(folder))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
