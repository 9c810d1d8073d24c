"""Recordings cut between words for TinyEn: what is written is what is to be heard."""

from io import BytesIO

import apsw
import numpy as np
import pytest
import soundfile
import splice
import torch
from hypothesis import given
from hypothesis import strategies as st

from thanosql.catalog.bases import BASES
from thanosql.catalog.sample.words import say
from thanosql.errors import DataError
from thanosql.speech.opening.opening import open_base
from thanosql.speech.sound.audio import SAMPLE_RATE, load

TEXT = "zero one two three four five six seven"


@pytest.fixture(scope="module")
def recognizer():
    return open_base("TinyEn", list)


def part(text, *, follows):
    # As loud as its text says, so that what comes where can be told.
    level = sum(map(ord, text)) / 10_000
    return splice.Part(np.full(4000, level, np.float32), text, follows)


def test_parts_in_a_row_are_the_recording_and_its_text(recognizer):
    audio = say(TEXT, seed=3)
    found = splice.parts(recognizer, audio, TEXT)
    assert len(found) > 3
    assert not found[0].follows
    words = " ".join(p.text for p in found).split()
    assert set(words) <= set(TEXT.split())
    assert words == sorted(words, key=TEXT.split().index)
    assert len(words) >= 5
    loud = load(audio, None)
    loud = loud / np.abs(loud).max()
    joined = np.concatenate([p.waveform for p in found])
    assert len(joined) <= len(loud)
    if len(words) == len(TEXT.split()):
        np.testing.assert_allclose(joined / np.abs(joined).max(), loud, atol=1e-6)


def test_a_word_that_the_model_does_not_hear_is_left_out(recognizer):
    said, written = "one two three four five", "one two xylophone four five"
    found = splice.parts(recognizer, say(said, seed=3), written)
    assert "xylophone" not in " ".join(p.text for p in found)


def test_an_alignment_that_would_end_the_process_is_refused():
    for frames, labels in ((60_000, 18_000), (2**31, 1), (2**16, 2**14)):
        scores = torch.zeros(1, 1, 3).expand(1, frames, 3)  # without memory of its own
        targets = torch.ones(1, 1, dtype=torch.int32).expand(1, labels)
        with pytest.raises(DataError, match=f"{frames} frames and {labels} labels"):
            splice.aligned(scores, targets, blank=0)


@given(
    st.dictionaries(
        st.sampled_from(["ann", "bob", "cat"]),
        st.lists(st.booleans(), min_size=1, max_size=8),
        min_size=1,
    ),
    st.integers(0, 1000),
)
def test_what_is_put_together_is_one_speakers_words_in_runs(follows, number):
    people = {
        name: [
            part(f"{name}{i} x", follows=flag and i > 0) for i, flag in enumerate(flags)
        ]
        for name, flags in follows.items()
    }
    waveform, text, speaker = splice.spliced(people, number)
    again = splice.spliced(people, number)
    np.testing.assert_array_equal(waveform, again[0])
    assert (text, speaker) == again[1:]
    low, high = splice.SECONDS
    assert low < len(waveform) / SAMPLE_RATE < high + splice.LONGEST
    said = text.split()[::2]
    assert len(waveform) == 4000 * len(said)
    assert all(word.startswith(speaker) for word in said)
    for i, word in enumerate(said):
        (same,) = (p for p in people[speaker] if p.text == f"{word} x")
        middle = waveform[4000 * i + 2000]
        assert middle == pytest.approx(same.waveform[0])


def test_a_table_is_filled_up_to_the_hours_and_is_the_same_in_two_goes(
    recognizer, tmp_path
):
    folder = str(BASES["TinyEn"].directory)

    def filled(path, *hours):
        with apsw.Connection(str(path)) as connection:
            connection.execute("CREATE TABLE people (audio, text, speaker)")
            for seed in (3, 4):
                row = (say(TEXT, seed=seed), TEXT, f"voice {seed}")
                connection.execute("INSERT INTO people VALUES (?, ?, ?)", row)
        for each in hours:
            splice.main([str(path), "--model", folder, "--hours", each])
        with apsw.Connection(str(path)) as connection:
            return list(connection.execute("SELECT * FROM spliced"))

    once = filled(tmp_path / "once.db", "0.01")
    assert filled(tmp_path / "twice.db", "0.005", "0.01") == once
    seconds = sum(row[4] for row in once)
    assert 36 <= seconds < 36 + 16
    rates = [soundfile.info(BytesIO(row[1])).samplerate for row in once]
    assert len(set(rates)) > 1
    slow, fast = splice.TAPE
    assert all(slow * SAMPLE_RATE <= rate <= fast * SAMPLE_RATE for rate in rates)
    for _, audio, text, speaker, length in once:
        assert len(load(audio, None)) == pytest.approx(length * SAMPLE_RATE, abs=1)
        assert set(text.split()) <= set(TEXT.split())
        assert speaker in {"voice 3", "voice 4"}
