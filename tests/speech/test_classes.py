"""Every class that transformers lists for speech is run, or refused with the reason.

A class that a later transformers adds fails here until somebody looks: give it a config
in toys, or a reason in `refused.py`.
"""

import json
from pathlib import Path

import pytest
import torch
import transformers
from tones import spoken
from toys import KINDS, TRANSDUCERS, WRITERS, write_config
from transformers.models.auto import modeling_auto

from thanosql import connect
from thanosql.errors import DatabaseError, NotSupportedError
from thanosql.speech.opening.opening import open_base
from thanosql.speech.recognizers import families
from thanosql.speech.recognizers.moonshine import MoonshineRecognizer
from thanosql.speech.recognizers.recognizer import quiet
from thanosql.speech.recognizers.refused import REFUSED
from thanosql.speech.recognizers.transducer import TransducerRecognizer
from thanosql.speech.recognizers.whisper import WhisperRecognizer
from thanosql.speech.sound.audio import load

TRIED = {
    "MODEL_FOR_CTC_MAPPING_NAMES": KINDS.keys(),
    "MODEL_FOR_RNNT_MAPPING_NAMES": TRANSDUCERS.keys() - {"parakeet_tdt"},
    "MODEL_FOR_TDT_MAPPING_NAMES": {"parakeet_tdt"},
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES": WRITERS.keys(),
}


@pytest.mark.parametrize("mapping", TRIED)
def test_every_class_of_a_mapping_is_tried_here_or_refused(mapping):
    listed, tried = getattr(modeling_auto, mapping), TRIED[mapping]
    refused = REFUSED.keys() if "SEQ_2_SEQ" in mapping else set()
    assert listed.keys() == tried | refused
    assert not tried & refused
    for kind in tried:
        assert families.CLASSES[kind] == listed[kind]
        found = families.family(getattr(transformers, listed[kind]))
        if mapping.endswith(("RNNT_MAPPING_NAMES", "TDT_MAPPING_NAMES")):
            assert found is TransducerRecognizer
        elif "CTC" not in mapping:
            assert found in (MoonshineRecognizer, WhisperRecognizer)


def test_nothing_is_run_that_transformers_does_not_list():
    listed = {
        name for mapping in TRIED for name in getattr(modeling_auto, mapping).items()
    }
    ours = {("encoder_ctc", "EncoderForCTC")}  # test_encoder_ctc.py has it
    assert set(families.CLASSES.items()) - listed == ours


def test_the_page_of_models_names_every_class():
    page = Path(__file__).parents[2].joinpath("docs/models.md").read_text("utf-8")
    run, refused = page.partition("## What is run")[2].split("are refused when", 1)
    assert {kind for kind in families.CLASSES if f"`{kind}`" not in run} == set()
    assert {kind for kind in REFUSED if f"`{kind}`" not in refused} == set()


@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_class_says_what_it_would_need(kind, tmp_path):
    """By its config alone, before weights and a tokenizer are looked for."""
    settings = {"model_type": kind}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    reason = rf"type '{kind}', which is not run here: it (needs|writes no text)"
    with pytest.raises(NotSupportedError, match=reason):
        open_base(str(tmp_path), lambda: pytest.fail("is refused before"))
    with (
        connect(":memory:") as connection,
        pytest.raises(DatabaseError, match=reason),
    ):
        connection.execute(f"GET MODEL '{tmp_path}'")


@pytest.mark.parametrize("kind", [*KINDS, *WRITERS])
def test_each_kind_is_built_predicts_and_is_exported(kind, tmp_path):
    """As `test_transducer.py` has it for transducers."""
    base = tmp_path / "base"
    if kind in WRITERS:
        scale = {"moonshine": "initializer_range", "whisper": "init_std"}[kind]
        WRITERS[kind](base, **{scale: 0.6})
    else:
        torch.manual_seed(0)
        bare = str(write_config(tmp_path / "bare", kind))
        recognizer = open_base(bare, lambda: ["abcd"])
        make_talkative(recognizer)
        recognizer.save(base)
    with connect(":memory:") as connection:
        connection.execute("CREATE TABLE clips (audio BLOB, text TEXT)")
        connection.executemany("INSERT INTO clips VALUES (?, ?)", spoken(5))
        connection.commit()
        connection.execute(
            f"BUILD MODEL reader USING '{base}' OPTIONS (epochs=1, batch_size=2, "
            "learning_rate=1e-5, freeze_encoder=FALSE) AS SELECT audio, text FROM clips"
        )
        texts = predicted(connection, "reader", batch_size=3)
        assert len({*texts}) > 1
        assert texts == predicted(connection, "reader", batch_size=1)
        connection.execute(f"EXPORT MODEL reader TO '{tmp_path / 'out'}'")
        connection.execute(f"IMPORT MODEL again FROM '{tmp_path / 'out'}'")
        assert texts == predicted(connection, "again", batch_size=2)
    ours = open_base(str(tmp_path / "out"), lambda: pytest.fail("has a vocabulary"))
    automatic = "AutoModelForCTC" if kind in KINDS else "AutoModelForSpeechSeq2Seq"
    with quiet():
        model = getattr(transformers, automatic).from_pretrained(tmp_path / "out")
        transformers.AutoProcessor.from_pretrained(tmp_path / "out")
    assert type(model) is type(ours.model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(ours.model.state_dict()[name], tensor), name


def make_talkative(recognizer):
    """Change a CTC model so that it writes, and what depends on what it hears."""
    heard = [recognizer.features(load(audio, None)) for audio, _ in spoken(5)]
    head = dict(recognizer.model.named_parameters())
    last = [name for name in head if name.endswith("head.weight")]
    with torch.no_grad():
        for name in last:
            head[name] *= 30
        logits, lengths = recognizer.logits(heard)
        real = [row[:n] for row, n in zip(logits, lengths.tolist(), strict=True)]
        for name in last:
            head[name.replace("weight", "bias")] -= torch.cat(real).mean(0)


def predicted(connection, model, batch_size):
    return [
        text
        for *_, text in connection.execute(
            f"PREDICT USING {model} OPTIONS (batch_size={batch_size}, "
            "vad=FALSE) AS SELECT audio FROM clips"
        )
    ]
