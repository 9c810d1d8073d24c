from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


def check(directory, *models):
    """Train models alone and in two processes; both are to come to the same."""
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
        assert len(each["alone"]) == 2
        for epochs in each["together"]:
            for expected, epoch in zip(each["alone"], epochs, strict=True):
                assert epoch == pytest.approx(expected, abs=1e-4), each["model"]
        assert each["are_equal"]
        assert each["share_apart"] < 0.01, each["model"]


def test_two_processes_learn_what_one_does(tmp_path):
    check(tmp_path, "parakeet", "whisper")


@pytest.mark.thorough(seconds=25)
def test_two_processes_learn_what_one_does_with_every_kind_of_model(tmp_path):
    models = ["wav2vec2", "moonshine", "lasr", "conformer", "hubert", "transducer"]
    check(tmp_path, *models, "layers dropped", "checkpointing")
