"""The state of a training, kept and gone on from."""

import threading
from contextlib import suppress

import pytest
import torch
from tones import spoken
from toys import config, parakeet, wav2vec2, whisper

from thanosql.errors import TrainingError
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers.recognizer import Loss
from thanosql.speech.training import checkpoint, train
from thanosql.speech.training.checkpoint import Checkpoints, State
from thanosql.speech.training.examination import examine
from thanosql.speech.training.monitoring import LossLog


def trained(recognizer, rows, folder=None, epochs_at_once=99, **changes):
    """Train, with a folder for so many epochs only; return the weights and results."""
    utterances = examine(recognizer, rows, None).utterances
    results = []

    def run(checkpoints):
        epochs = train.train(
            recognizer,
            rows,
            utterances[3:],
            utterances[:3],
            config(epochs=4, **changes),
            None,
            checkpoints=checkpoints,
        )
        already = 0 if checkpoints is None else checkpoint.epochs(folder)
        with suppress(TrainingError):  # it has not learned to speak yet
            for result in epochs:
                results.append(result)
                if len(results) == already + epochs_at_once:
                    break
        epochs.close()

    if folder is None:
        run(None)
    else:
        with Checkpoints(folder) as checkpoints:
            run(checkpoints)
    state = {k: v.clone() for k, v in recognizer.model.state_dict().items()}
    return state, [(r.epoch, r.steps, r.train_loss, r.wer, r.best) for r in results]


def whispers_encoder(folder):
    torch.manual_seed(0)
    return open_base(str(whisper(folder, dropout=0.1)), lambda: ["abcd"], ctc=True)


MODELS = {
    # Batch norm, whose running means are buffers; LayerDrop and dropout.
    "parakeet": lambda folder: parakeet(
        folder, dropout=0.1, attention_dropout=0.1, layerdrop=0.3, num_hidden_layers=2
    ),
    # SpecAugment, LayerDrop, weight norm.
    "wav2vec2": wav2vec2,
    # A frozen encoder, whose frames are kept; dropout.
    "whisper": lambda folder: open_base(str(whisper(folder, dropout=0.1)), list),
    # A head, trained before the first epoch.
    "whisper's encoder": whispers_encoder,
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_training_in_four_goes_ends_as_in_one(tmp_path, model):
    rows = spoken(11)
    bases = [tmp_path / str(number) for number in range(5)]
    kept = tmp_path / "kept"
    for each in (*bases, kept):
        each.mkdir()

    def fresh(place):
        torch.manual_seed(5)
        return model(place)

    augmented = dict.fromkeys(
        ("speed_perturbation", "noise_perturbation", "spec_augment"), True
    )
    expected, results = trained(fresh(bases[0]), rows, **augmented)
    for place, epochs_at_once in zip(bases[1:], (1, 1, 1, 99), strict=True):
        found, again = trained(fresh(place), rows, kept, epochs_at_once, **augmented)
    assert again == results
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


@pytest.mark.parametrize("precisions", [("fp32", "fp16"), ("fp16", "bf16")])
def test_a_training_goes_on_where_auto_means_another_precision(tmp_path, precisions):
    rows = spoken(8)
    for precision in precisions:
        recognizer = parakeet(tmp_path)
        _, results = trained(recognizer, rows, tmp_path, 2, precision=precision)
    assert [epoch for epoch, *_ in results] == [1, 2, 3, 4]


def test_a_state_that_is_still_written_is_not_the_one_that_is_found(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(State({"model.x": torch.ones(3)}, facts(1)), {})
    (tmp_path / "checkpoint.partial").write_bytes(b"half")
    state, best = Checkpoints(tmp_path).load()
    assert state.facts["epoch"] == 1
    assert not best


def facts(epoch, best=None):
    return {"epoch": epoch, "best_epoch": best or epoch}


def test_the_best_weights_are_written_once_they_are_not_the_last(tmp_path):
    tensors, best = {"model.x": torch.ones(3)}, {"x": torch.zeros(3)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(State(tensors, facts(1)), {})
        checkpoints.save(State(tensors, facts(2, best=1)), best)
        checkpoints.save(State(tensors, facts(3, best=1)), best)
    assert {p.name for p in tmp_path.iterdir()} == {
        "checkpoint.safetensors",
        "best-1.safetensors",
    }
    state, kept = Checkpoints(tmp_path).load()
    assert torch.equal(kept["x"], best["x"])
    assert state.facts == facts(3, best=1)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(State(tensors, facts(4)), {})
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_training_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    go_on = threading.Event()
    save = checkpoint.save_file

    def slow(*arguments, **named):
        go_on.wait(10)
        save(*arguments, **named)

    monkeypatch.setattr(checkpoint, "save_file", slow)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.ready
        checkpoints.save(State({"model.x": torch.ones(3)}, facts(1)), {})
        assert not checkpoints.ready
        assert not (tmp_path / "checkpoint.safetensors").exists()
        go_on.set()
    assert checkpoint.epochs(tmp_path) == 1


def test_a_loss_log_goes_on_where_it_was():
    log, other = (LossLog(torch.device("cpu"), 2) for _ in range(2))
    for step in range(7):
        log.add(Loss(torch.tensor(3.0 - step / 10), torch.tensor(0.0)), 4)
    log.mean()
    other.restore(log.state())
    assert other.state() == log.state()
