from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from together import learned, opened

from thanosql.speech.peers import Seat
from thanosql.speech.training.parallel import ALONE, joined

TESTS = Path(__file__).parents[1]


def trained(directory, *models):
    """Return what came of models that were trained alone and in two processes."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    run = subprocess.run(
        [sys.executable, str(TESTS / "together.py"), str(directory), *models],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert [each["model"] for each in found] == [*models], run.stderr
    for each in found:
        assert each["codes"] == [0, 0, 0], run.stderr
        assert each["are_equal"]
    return found


def check(directory, *models):
    """Train models alone and in two processes; both are to come to the same."""
    found = trained(directory, *models)
    for each in found:
        assert len(each["alone"]) == 2
        for epochs in each["together"]:
            for expected, epoch in zip(each["alone"], epochs, strict=True):
                assert epoch == pytest.approx(expected, abs=1e-4), each["model"]
        assert each["share_apart"] < 0.01, each["model"]
    return found


def test_a_group_of_one_process_learns_what_it_does_alone(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    expected, _ = learned("parakeet", opened("parakeet", tmp_path / "a"), ALONE)
    recognizer = opened("parakeet", tmp_path / "b")
    with joined(Seat(0, 1, "127.0.0.1", port), torch.device("cpu")) as group:
        found, _ = learned("parakeet", recognizer, group)
    assert np.array(found) == pytest.approx(np.array(expected), abs=1e-4)


@pytest.mark.thorough(seconds=10)
def test_two_processes_learn_what_one_does(tmp_path):
    check(tmp_path, "parakeet", "whisper")


@pytest.mark.thorough(seconds=25)
def test_two_processes_learn_what_one_does_with_every_kind_of_model(tmp_path):
    models = ["wav2vec2", "moonshine", "lasr", "conformer", "hubert", "transducer"]
    check(tmp_path, *models, "layers dropped", "checkpointing")
    check(tmp_path, "whisper's encoder", "transducer's encoder")


@pytest.mark.thorough(seconds=20)
def test_two_processes_adapt_what_one_does_and_leave_the_base(tmp_path):
    models = ["parakeet, adapted", "whisper, adapted", "wav2vec2, adapted"]
    found = check(tmp_path, *models)
    # Here the two leave out other layers than one does, and than each other.
    found += trained(tmp_path, "w2v-bert, adapted")
    assert [each["trained"] for each in found] == [["lora_A", "lora_B"]] * 4
