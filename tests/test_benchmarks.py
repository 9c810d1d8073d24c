"""What the benchmarks reckon, and the script for a GPU before there is a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("on_gpu")


@pytest.fixture
def finetuning(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return __import__("finetuning")


def test_the_script_for_a_gpu_writes_one_report(tmp_path):
    output = tmp_path / "report.json"
    command = [sys.executable, BENCHMARKS / "on_gpu.py", "--device", "cpu", "--small"]
    done = subprocess.run(
        [*command, "--only", "matrices", "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text(encoding="utf-8"))
    assert json.loads(done.stdout) == report
    assert {"machine", "versions", "measurements", "ratios", "checks"} <= report.keys()
    rates = report["measurements"]["matrices"]["bf16"]["tflop_a_second"]
    assert len(rates) == 5
    assert min(rates) > 0
    assert report["checks"] == {"matrices": "done"}


def test_a_part_that_takes_too_long_says_so(on_gpu):
    found = on_gpu.run("matrices", "cpu", "small", 0.05)
    assert found["failed"].startswith("took longer than 0 s")


def test_a_part_that_fails_says_why(on_gpu):
    found = on_gpu.run("matrices", "no device", "small", 60)
    assert found["failed"].startswith("exit status 1: ")
    assert "no device" in "\n".join(found["log"])


def test_each_part_has_a_limit_and_all_are_done_within_ten_minutes(on_gpu):
    assert on_gpu.LIMITS.keys() == on_gpu.on_gpu_parts.PARTS.keys()
    assert sum(limit.seconds for limit in on_gpu.LIMITS.values()) <= on_gpu.WHOLE < 600


def test_speeds_become_ratios_to_the_peer_and_to_the_peak(on_gpu):
    speeds = {"ours": [200.0, 400.0], "peer": [100.0, 100.0]}
    found = {
        "matrices": {"bf16": {"tflop_a_second": [9.0, 10.0]}},
        "BUILD, wav2vec2-base": {
            "gflop_an_audio_second": 5.0,
            "bf16": {"audio_seconds_a_second": speeds},
        },
        "PREDICT, wav2vec2-base": {"failed": "took longer than 80 s"},
    }
    to_peer, to_peak = on_gpu.ratios(found)
    assert (to_peer.lowest, to_peer.highest) == (2, 4)
    assert (to_peak.lowest, to_peak.highest) == (0.1, 0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="the nodes need 127.0.0.2")
@pytest.mark.thorough(seconds=30)
def test_what_a_database_can_feed_is_measured(tmp_path):
    pytest.importorskip("ray", reason="the extra [ray] is not installed")
    output = tmp_path / "report.json"
    command = [sys.executable, BENCHMARKS / "cluster.py", "--small"]
    done = subprocess.run(
        [*command, "--only", "feeding", "--output", output],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text(encoding="utf-8"))["measurements"]["feeding"]
    assert min(each["rows_a_second"] for each in found.values()) > 0
    shares = [each["share of what they can"] for each in found.values()]
    assert max(share for share in shares if share is not None) <= 1


def test_each_way_to_train_on_a_speaker_is_measured_beside_its_peer(finetuning):
    have = {"reader": 5.2, "child": 15.1}
    cells = finetuning.cells("full", ["as it comes", "full", "ctc"], have)
    assert ("reader", 0.0, "as it comes", "thanosql") in cells
    assert ("child", 15, "full", "thanosql") in cells
    assert ("child", 15, "full", "Seq2SeqTrainer") in cells
    assert ("child", 15, "ctc", "thanosql") in cells
    assert ("child", 15, "ctc", "Seq2SeqTrainer") not in cells
    assert not [cell for cell in cells if cell[:2] == ("reader", 15)]


def test_what_was_measured_on_a_speaker_becomes_ratios_and_a_table(finetuning):
    figures = {"wer": 0.25, "seconds": 10.0, "peak_mib": 900.0}
    found = {
        "child, 0 min, as it comes, thanosql": {"wer": 0.5},
        "child, 1 min, full, thanosql": {**figures, "wer": 0.2},
        "child, 1 min, full, Seq2SeqTrainer": {**figures, "seconds": 20.0},
        "child, 5 min, ctc, thanosql": figures,
    }
    errors, seconds, peak = finetuning.ratios(found)
    assert (errors.median, seconds.median, peak.median) == (0.8, 0.5, 1.0)
    assert {each.name.split(":")[0] for each in (errors, seconds, peak)} == {
        "child, 1 min, full"
    }
    assert finetuning.table(found).splitlines() == [
        "| speaker | minutes | as it comes | full | full, Seq2SeqTrainer | ctc |",
        "|---|---|---|---|---|---|",
        "| child | 1 | 0.500 | 0.200, 10 s | 0.250, 20 s | - |",
        "| child | 5 | 0.500 | - | - | 0.250, 10 s |",
    ]


def test_cells_are_added_to_results_of_the_same_settings_only(finetuning):
    old = finetuning.document("full", {"child, 1 min, ctc, thanosql": {"wer": 0.2}})
    assert finetuning.merged(old, finetuning.document("full", {})) is old
    with pytest.raises(SystemExit, match="another set: full, now small"):
        finetuning.merged(old, finetuning.document("small", {}))


def test_no_sentence_of_a_speaker_is_trained_on_and_tested_with(finetuning, tmp_path):
    speakers = finetuning.speakers
    if not speakers.RECORDINGS.is_dir():
        pytest.skip("needs the recordings of ../shared/speech")
    have = speakers.write(tmp_path, "reader", 15, tested=3)
    assert {
        cell[1]
        for cell in finetuning.cells("full", ["ctc"], {"reader": have, "child": 0})
    } == {1, 5}
    one, test = speakers.read(tmp_path, "reader", 1)
    five, same = speakers.read(tmp_path, "reader", 5)
    assert test == same
    assert one == five[: len(one)]
    assert not {clip.text for clip in five} & {clip.text for clip in test}
    assert sum(clip.seconds for clip in one) == pytest.approx(60, abs=10)
    assert sum(clip.seconds for clip in five) == pytest.approx(300, abs=10)
    assert sum(clip.seconds for clip in test) >= 180
