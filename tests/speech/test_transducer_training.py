"""Transducers learn to read by the loop of all families, through statements."""

from __future__ import annotations

import json
import math
from contextlib import closing, suppress

import pytest
import torch
from tones import SECONDS_A_LETTER, spoken, tones
from toys import config, reading_transducer

from thanosql import connect
from thanosql.errors import OptionError, TrainingError
from thanosql.speech.decoding.words import Grid
from thanosql.speech.metrics import character_errors
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import transducer_decoding
from thanosql.speech.recognizers.quantization import Int8Linear
from thanosql.speech.recognizers.transducer_search import Emission, GreedySearch
from thanosql.speech.recording import Span
from thanosql.speech.training import examination
from thanosql.speech.training.checkpoint import Checkpoints
from thanosql.speech.training.train import train

KINDS = ("parakeet_tdt", "parakeet_rnnt")
BUILD = (
    "BUILD MODEL {name} USING '{base}' OPTIONS (epochs={epochs}, batch_size=4, "
    "learning_rate=3e-3, validation=0.0{more}) AS SELECT audio, text FROM clips"
)


@pytest.fixture(scope="module", params=KINDS)
def reader(request, tmp_path_factory):
    """A connection with `reader`, built of a bare config in seconds, and its base."""
    base = reading_transducer(tmp_path_factory.mktemp("bases") / "base", request.param)
    with connect(":memory:") as connection:
        connection.execute("CREATE TABLE clips (audio BLOB, text TEXT)")
        connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(160))
        connection.execute("CREATE TABLE others (audio BLOB, text TEXT)")
        connection.executemany("INSERT INTO others VALUES (?, ?)", spoken(40, seed=99))
        connection.commit()
        connection.execute(BUILD.format(name="reader", base=base, epochs=10, more=""))
        yield connection


def utterances_of(recognizer, rows):
    return examination.examine(recognizer, rows, None, lambda *_, **__: None).utterances


def is_int8(module):
    return isinstance(module, Int8Linear)


def test_a_bare_config_learns_to_read_words_that_it_was_not_trained_on(reader):
    scores = reader.execute("EVALUATE USING reader AS SELECT * FROM others")
    names = [column[0] for column in scores.description]
    found = dict(zip(names, scores.fetchone(), strict=True))
    assert found["cer"] < 0.15


def test_words_lie_where_they_are_spoken(reader):
    said = ["abca", "dcb", "bdd"]
    recording = tones(" ".join(said))
    ((text, words, confidence),) = reader.execute(
        "SELECT predicted, words, confidence FROM (PREDICT USING reader "
        "OPTIONS (words=TRUE) AS SELECT ? AS audio)",
        (recording,),
    )
    found = json.loads(words)
    assert " ".join(each["word"] for each in found) == text
    assert 0 < confidence <= 1
    assert all(0 < each["confidence"] <= 1 for each in found)
    assert found[0]["start"] < 0.2
    assert found[-1]["end"] <= SECONDS_A_LETTER * len(" ".join(said)) + 0.2
    times = [time for each in found for time in (each["start"], each["end"])]
    assert times == sorted(times)


class Told:
    """A search that finds what it is told."""

    def __init__(self, *emissions):
        self.emissions = emissions

    def run(self, lanes):
        for lane in lanes:
            lane.emissions = list(self.emissions)


def test_times_are_those_of_the_frames_and_durations(tmp_path):
    """Frames of 40 ms; two windows, the second with context, after a pause."""
    base = reading_transducer(tmp_path / "base", "parakeet_tdt")
    recognizer = open_base(str(base), lambda: ["ab cd"])
    ids = [recognizer.spelling.encode(each)[0] for each in "ab"]
    space = recognizer.spelling.encode("a b")[1]
    told = Told(
        Emission(ids[0], 5, 2, math.log(0.9)),
        Emission(ids[1], 8, 3, math.log(0.8)),
        Emission(space, 12, 0, math.log(0.5)),
        Emission(ids[0], 12, 4, math.log(0.7)),
    )
    decoding = transducer_decoding.Transduction(
        told, recognizer.spelling, Grid(640, 320)
    )
    decoder = decoding.start()
    decoder.feed(torch.zeros(12, 4), slice(0, 10), (Span(0, 0, 7680),))
    decoder.silence()
    decoder.feed(torch.zeros(20, 4), slice(4, None), (Span(0, 16_000, 12_800),))
    found = decoder.finish()
    assert found.text == "ab a"
    first, second = found.words
    # The middle of frame 5 is at 0.22 s; frame 8 and two more end in the other window.
    assert first.start == pytest.approx(0.22 - 0.1)
    assert first.end == pytest.approx(1 + 4 * 0.04 + 0.02)
    assert first.confidence == pytest.approx(0.9 * 0.8)
    assert second.start == first.end  # which is less than 0.1 s before frame 12
    assert second.end == pytest.approx(1 + 9 * 0.04 + 0.02 + 0.06)
    assert found.confidence == pytest.approx((0.72 + second.confidence) / 2)
    mean = (0.9 * 0.8 * 0.5 * 0.7) ** 0.25
    assert found.details.token_probability == pytest.approx(mean)


def test_a_long_recording_is_read_in_windows_as_it_is_in_one(reader):
    said = [text for _, text in spoken(12, seed=5)]
    recording = tones(" ".join(said))

    def read(**options):
        settings = ", ".join(f"{name}={value}" for name, value in options.items())
        ((text,),) = reader.execute(
            f"SELECT predicted FROM (PREDICT USING reader OPTIONS ({settings}) "
            "AS SELECT ? AS audio)",
            (recording,),
        )
        return text

    whole = read(chunk_seconds=60)
    assert len(whole) > 10
    for batch_size in (1, 3):
        cut = read(chunk_seconds=3, batch_size=batch_size)
        assert cut == read(chunk_seconds=3, batch_size=8)
        # It was trained on words of half a second.
        assert character_errors([whole], [cut]).rate < 0.4


def test_many_frames_are_not_left_waiting(reader, monkeypatch):
    """A recording whose end is far is searched on the way, for the memory's sake."""
    monkeypatch.setattr(transducer_decoding, "_MOST_WAITING", 40)
    waited = []
    run = GreedySearch.run

    def counted(self, lanes):
        waited.append(sum(len(f) for lane in lanes for f in lane.waiting))
        run(self, lanes)

    recording = tones(" ".join(text for _, text in spoken(12, seed=5)))
    statement = (
        "SELECT predicted FROM (PREDICT USING reader OPTIONS (chunk_seconds=3, "
        "batch_size=2) AS SELECT ? AS audio)"
    )
    expected = reader.execute(statement, (recording,)).fetchall()
    monkeypatch.setattr(GreedySearch, "run", counted)
    assert reader.execute(statement, (recording,)).fetchall() == expected
    assert len(waited) > 3


def test_a_training_that_broke_off_goes_on_to_the_same_weights(tmp_path):
    base = reading_transducer(tmp_path / "base", "parakeet_tdt")

    def fitted(*, broken):
        torch.manual_seed(0)
        recognizer = open_base(str(base), lambda: ["abcd"])
        folder = tmp_path / f"checkpoints {broken}"
        folder.mkdir()
        rows = spoken(8)
        learned = utterances_of(recognizer, rows)

        def epochs():
            return train(
                recognizer,
                rows,
                learned,
                learned[:0],
                config(epochs=3),
                None,
                lambda *_, **__: None,
                checkpoints=checkpoints,
            )

        with Checkpoints(folder) as checkpoints:
            if broken:
                with closing(epochs()) as first:
                    next(first)
                    checkpoints._wait()
            with suppress(TrainingError):  # it has learned nothing in three epochs
                for _ in epochs():
                    pass
        return recognizer.model.state_dict()

    expected, found = fitted(broken=False), fitted(broken=True)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_encoder_stays_as_it_is(kind, tmp_path):
    base = reading_transducer(tmp_path / "base", kind)
    torch.manual_seed(0)
    recognizer = open_base(str(base), lambda: ["abcd"])
    recognizer.fresh = frozenset()  # as if its weights were loaded
    before = {n: t.clone() for n, t in recognizer.model.state_dict().items()}
    rows = spoken(8)
    learned = utterances_of(recognizer, rows)
    options = config(epochs=1, freeze_encoder=True)
    with suppress(TrainingError):
        for _ in train(
            recognizer, rows, learned, learned[:0], options, None, lambda *_, **__: None
        ):
            pass
    for name, tensor in recognizer.model.state_dict().items():
        assert torch.equal(tensor, before[name]) == name.startswith("encoder.")


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_the_loss_is_about_the_same(kind, tmp_path):
    base = reading_transducer(tmp_path / "base", kind)
    torch.manual_seed(0)
    recognizer = open_base(str(base), lambda: ["abcd"])
    features = [torch.randn(n, 80) for n in (60, 90)]
    targets = [(3, 4), (5, 6, 5)]
    with torch.no_grad():
        exact = recognizer.loss(features, targets).mean
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = recognizer.loss(features, targets).mean
    assert rounded.dtype == torch.float32
    assert float(rounded) == pytest.approx(float(exact), rel=0.05)


def test_in_int8_the_texts_are_much_the_same_and_the_batch_does_not_count(tmp_path):
    base = reading_transducer(
        tmp_path / "base", "parakeet_tdt", hidden_size=256, intermediate_size=512
    )
    torch.manual_seed(0)
    recognizer = open_base(str(base), lambda: ["abcd"])
    rounded = recognizer.int8
    assert rounded is not recognizer
    layers = {name for name, m in rounded.model.named_modules() if is_int8(m)}
    assert layers
    assert all(layer.startswith("encoder.") for layer in layers)
    features = [torch.randn(n, 80) for n in (60, 90, 31)]
    with torch.no_grad():
        together = rounded.encoded(features)
        for frames, exact, each in zip(
            together, recognizer.encoded(features), features, strict=True
        ):
            (alone,) = rounded.encoded([each])
            torch.testing.assert_close(frames, alone, atol=0, rtol=0)
            assert (frames - exact).norm() < 0.1 * exact.norm()


def test_texts_that_no_frames_can_carry_are_bad_rows(tmp_path):
    base = reading_transducer(tmp_path / "base", "parakeet_tdt")
    recognizer = open_base(str(base), lambda: ["abcd"])
    assert recognizer.misfit((3,) * 100, 40, 0.4) == ""
    assert "at most 100 tokens, not 101" in recognizer.misfit((3,) * 101, 40, 0.4)
    assert "at most 199.96 s" in recognizer.misfit((3,), 20_001, 200.01)
    recognizer.model.config.durations = [1, 2]
    recognizer.model.config.encoder_config.max_position_embeddings = 50
    assert recognizer.misfit((3,) * 9, 40, 0.4) == ""
    assert "at most 9 tokens" in recognizer.misfit((3,) * 10, 40, 0.4)


def test_a_training_is_told_of_no_language(reader, tmp_path):
    base = reading_transducer(tmp_path / "base", "parakeet_tdt")
    with pytest.raises(OptionError, match=r"language.*finds by itself"):
        reader.execute(
            BUILD.format(name="other", base=base, epochs=1, more=", language='ko'")
        )


def test_a_stored_reader_trains_further(reader):
    rows = reader.execute(
        "FIT MODEL further USING reader OPTIONS (epochs=1, batch_size=8, "
        "learning_rate=1e-4, validation=0.0) AS SELECT audio, text FROM clips LIMIT 24"
    ).fetchall()
    assert len(rows) == 1
    reader.execute("DROP MODEL further")
