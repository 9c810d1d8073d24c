"""Trainings that are killed, in real processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the script forks")
@pytest.mark.thorough(seconds=100)
def test_a_killed_training_harms_nothing_and_goes_on_to_the_same_model(calls, base):
    moments = 50
    path = calls.execute("PRAGMA database_list").fetchone()[2]
    calls.close()
    script = Path(__file__).with_name("crashing.py")
    done = subprocess.run(
        [sys.executable, script, path, base, str(moments), "7"],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    first, *rest = map(json.loads, done.stdout.splitlines())
    assert len(rest) == moments, done.stderr
    before, expected = first["before"], first["expected"]
    assert before["model"] != expected["model"]
    for moment in rest:
        broken, resumed = moment["broken"], moment["resumed"]
        assert broken["integrity"] == "ok", moment
        earlier = expected if broken["model"] == expected["model"] else before
        assert broken["model"] == earlier["model"], moment
        assert broken["texts"] == earlier["texts"], moment
        assert broken["orphans"] == 0, moment
        assert "training" not in broken["statuses"], moment
        if moment["said"] is not None:
            assert "KeyboardInterrupt" in moment["said"], moment
        assert moment["finished"] is None, moment["finished"]
        assert resumed["model"] == expected["model"], moment
        assert resumed["texts"] == expected["texts"], moment
        assert (resumed["orphans"], resumed["folders"]) == (0, 0), moment
        assert resumed["statuses"][-1] == "stored", moment
