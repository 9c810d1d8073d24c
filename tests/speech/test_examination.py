from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from tones import SECONDS_A_LETTER, spoken, tones
from toys import parakeet, wav2vec2

from thanosql.errors import TrainingError
from thanosql.speech.recognizers.ctc import frames_needed
from thanosql.speech.rows import BadRow, bad_rows_error
from thanosql.speech.training.batches import CUT_OFF, row_features
from thanosql.speech.training.examination import examine
from thanosql.speech.training.utterances import (
    Utterance,
    Utterances,
    hold_out,
    trained_on,
)


@pytest.fixture
def recognizer(tmp_path):
    return parakeet(tmp_path)


def test_good_rows_become_utterances_in_their_order(recognizer):
    rows = spoken(40)
    found = examine(recognizer, rows, None)
    assert found.bad == ()
    assert [u.row for u in found.utterances] == list(range(1, 41))
    for utterance, (_, text) in zip(found.utterances, rows, strict=True):
        assert recognizer.spelling.decode(recognizer.targets(text)) == text
        assert utterance.seconds == pytest.approx(SECONDS_A_LETTER * len(text))


def test_every_bad_row_is_returned_with_its_reason(recognizer, tmp_path):
    (tmp_path / "text.wav").write_text("this is no audio")
    (tmp_path / "empty.wav").touch()
    blob = tones("ab")
    rows = [
        (blob, "ab"),
        (None, "ab"),
        ("missing.wav", "ab"),
        ("text.wav", "ab"),
        ("empty.wav", "ab"),
        (b"", "ab"),
        (blob[: len(blob) // 2 - 2000][:40], "ab"),
        (3.5, "ab"),
        (blob, None),
        (blob, " "),
        (blob, "!?"),
        (blob, 7),
        (blob, "abcd" * 10),
    ]
    bad = {b.row: b.reason for b in examine(recognizer, rows, tmp_path).bad}
    reasons = {
        2: "audio is NULL",
        3: "missing.wav",
        4: "text.wav",
        5: "empty",
        6: "empty",
        7: "BLOB",
        8: "float",
        9: "text is NULL",
        10: "text is empty",
        11: "can spell nothing of '!\\?'",
        12: "text is a number",
        13: "text too long for its audio",
    }
    assert sorted(bad) == sorted(reasons)
    for row, reason in reasons.items():
        assert reason.replace("\\", "") in bad[row], (row, bad[row])


def test_a_text_too_long_for_its_audio_says_how_long_it_would_have_to_be(tmp_path):
    recognizer = wav2vec2(tmp_path)
    rows = [(tones("ab"), "aabb" * 6)]
    (bad,) = examine(recognizer, rows, None).bad
    seconds = float(bad.reason.split()[-2])

    def frames(seconds):
        # A recording may lack some silence at its end, which is added.
        return recognizer.frames(round((seconds + CUT_OFF) * 16_000))

    assert frames(seconds + 0.01) >= frames_needed([1, 1, 2, 2] * 6) == 24 + 12
    assert frames(seconds - 0.01) < 36


def test_a_word_cut_out_closely_gets_the_silence_that_its_letters_need(tmp_path):
    recognizer = wav2vec2(tmp_path)
    text = "aabb" * 6
    enough = next(n for n in range(1, 10**6) if recognizer.frames(n) >= 36)
    noise = np.random.default_rng(0).normal(0, 0.1, enough - 1)
    word = io.BytesIO()
    soundfile.write(word, noise, 16_000, format="WAV")
    row = (word.getvalue(), text)
    found = examine(recognizer, [row], None)
    assert found.bad == ()
    (utterance,) = found.utterances
    assert utterance.seconds == pytest.approx((enough - 1) / 16_000)
    for speed in (0.9, 1.0, 1.1):
        features = row_features(
            recognizer, 1, row[0], recognizer.targets(text), None, speed
        )
        assert recognizer.frames(len(features)) >= 36


def test_equal_neighbours_need_a_frame_between_them():
    assert frames_needed([]) == 0
    assert frames_needed([1, 2, 3]) == 3
    assert frames_needed([1, 1, 2, 2]) == 6


def test_characters_that_cannot_be_spelled_are_counted(recognizer):
    found = examine(recognizer, [(tones("ab"), "a!b!?")] * 3, None)
    assert found.dropped == {"!": 6, "?": 3}
    assert len(found.utterances) == 3


def test_progress_is_told_to_the_last_row(recognizer):
    told = []
    examine(recognizer, spoken(20), None, lambda *facts: told.append(facts))
    assert told[-1] == ("examine", 20, 20)


def test_the_error_lists_the_first_ten_bad_rows_and_counts_the_rest():
    bad = [BadRow(row, "text is NULL") for row in range(3, 28, 2)]
    error = bad_rows_error(bad, 50, "text")
    assert isinstance(error, TrainingError)
    lines = str(error).splitlines()
    assert lines[0].startswith("13 of 50 rows of the query cannot be used")
    assert lines[1] == "  row 3: text is NULL"
    assert lines[-1] == "  and 3 more"
    assert len(lines) == 12
    assert "more" not in str(bad_rows_error(bad[:10], 50, "text"))


@pytest.mark.parametrize(("share", "held"), [(0, 0), (0.1, 2), (0.001, 1), (1, 19)])
def test_a_share_of_the_utterances_is_held_out(recognizer, share, held):
    utterances = examine(recognizer, spoken(20), None).utterances
    training, validation = hold_out(utterances, share, seed=0)
    assert len(validation) == held
    both = [*training, *validation]
    assert sorted(both, key=lambda u: u.row) == list(utterances)
    assert [[*part] for part in hold_out(utterances, share, seed=0)] == [
        [*training],
        [*validation],
    ]
    if held == 2:
        assert [*hold_out(utterances, share, seed=1)[1]] != [*validation]


@given(
    contents=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    share=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    seed=st.integers(0, 9),
)
def test_equal_recordings_stay_on_one_side_of_the_split(contents, share, seed):
    utterances = Utterances(
        Utterance(row, 1.0, content) for row, content in enumerate(contents, start=1)
    )
    training, validation = hold_out(utterances, share, seed)
    both = [*training, *validation]
    assert sorted(both, key=lambda u: u.row) == list(utterances)
    assert [u.row for u in training] == sorted(u.row for u in training)
    assert len(training) > 0
    assert (len(validation) > 0) == (share > 0 and len(contents) > 1)
    one_recording = len(set(contents)) == 1
    assert one_recording or trained_on(validation, training) == 0
    if one_recording:
        assert trained_on(validation, training) == len(validation)


def test_a_single_utterance_is_trained_on(recognizer):
    utterances = examine(recognizer, spoken(1), None).utterances
    training, validation = hold_out(utterances, 0.5, seed=0)
    assert ([*training], [*validation]) == ([*utterances], [])
