from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from thanosql import errors
from thanosql.statements import (
    BuildOptions,
    CopyOptions,
    EvaluateOptions,
    ExportOptions,
    FitOptions,
    GetDatasetOptions,
    GetModelOptions,
    ImportOptions,
    NGramOptions,
    PredictOptions,
    PrintAudioOptions,
    as_dict,
    bind,
    parse,
    shaping_weights,
)

CLASSES = [
    BuildOptions,
    FitOptions,
    NGramOptions,
    PredictOptions,
    EvaluateOptions,
    PrintAudioOptions,
    ImportOptions,
    ExportOptions,
    GetModelOptions,
    GetDatasetOptions,
    CopyOptions,
]


def bound(cls, written: str, parameters=()):
    sql = f"PREDICT USING m OPTIONS ({written}) AS SELECT 1"
    (clause,) = parse(sql).clauses
    return bind(cls, clause.node.options, lambda p: p.value(parameters), sql)


def refusal(cls, written: str, parameters=()) -> str:
    with pytest.raises(errors.OptionError) as caught:
        bound(cls, written, parameters)
    return str(caught.value)


def test_defaults_hold_where_nothing_is_written():
    assert bound(BuildOptions, "") == BuildOptions()
    assert bound(BuildOptions, "epochs=3") == BuildOptions(epochs=3)


def test_names_are_taken_in_any_case_and_in_quotes():
    assert bound(BuildOptions, 'EPOCHS=2, "Seed"=3') == BuildOptions(epochs=2, seed=3)


def test_other_names_of_an_option_are_taken():
    options = bound(BuildOptions, "max_epochs=2, audio_path=wav")
    assert options == BuildOptions(epochs=2, audio_col="wav")


@pytest.mark.parametrize(
    ("option", "written", "value"),
    [
        ("epochs", "3", 3),
        ("epochs", "3.0", 3),
        ("epochs", "1e1", 10),
        ("learning_rate", "1", 1.0),
        ("learning_rate", "3e-5", 3e-5),
        ("warmup", "0", 0.0),
        ("warmup", "1", 1.0),
        ("weight_decay", "0", 0.0),
        ("overwrite", "TRUE", True),
        ("overwrite", "1", True),
        ("overwrite", "0", False),
        ("freeze_feature_encoder", "auto", "auto"),
        ("freeze_feature_encoder", "FALSE", False),
        ("freeze_feature_encoder", "1", True),
        ("precision", "BF16", "bf16"),
        ("precision", "'fp32'", "fp32"),
        ("device", "'cuda:1'", "cuda:1"),
        ("device", "cpu", "cpu"),
        ("seed", "0x10", 16),
        ("seed", "9223372036854775807", 2**63 - 1),
        ("validation", "0.25", 0.25),
        ("validation", "0", 0.0),
        ("validation", "'SELECT * FROM held_out'", "SELECT * FROM held_out"),
        ("max_steps", "NULL", None),
        ("max_steps", "100", 100),
        ("time_limit", "90", 90.0),
        ("audio_col", "NULL", None),
        ("audio_col", "'a column'", "a column"),
    ],
)
def test_value_is_taken_as_the_type_of_the_option(option, written, value):
    taken = getattr(bound(BuildOptions, f"{option}={written}"), option)
    assert taken == value
    assert type(taken) is type(value)


@pytest.mark.parametrize(
    ("option", "written", "message"),
    [
        ("epochs", "0", "a whole number, 1 or more, not 0"),
        ("epochs", "-3", "a whole number, 1 or more, not -3"),
        ("epochs", "1.5", "a whole number, 1 or more, not 1.5"),
        ("epochs", "many", "a whole number, 1 or more, not 'many'"),
        ("epochs", "'5'", "a whole number, 1 or more, not '5'"),
        ("epochs", "TRUE", "a whole number, 1 or more, not TRUE"),
        ("epochs", "NULL", "a whole number, 1 or more, not NULL"),
        ("epochs", "9e999", "a whole number, 1 or more, not inf"),
        ("epochs", "x'05'", "a whole number, 1 or more, not b'\\x05'"),
        ("seed", "-1", "a whole number, 0 or more, not -1"),
        ("learning_rate", "0", "a number above 0, or NULL, not 0"),
        ("learning_rate", "9e999", "a number above 0, or NULL, not inf"),
        ("learning_rate", "TRUE", "a number above 0, or NULL, not TRUE"),
        ("warmup", "1.5", "a number from 0 to 1, not 1.5"),
        ("weight_decay", "-1", "a number, 0 or more, not -1"),
        ("overwrite", "2", "TRUE or FALSE, not 2"),
        ("overwrite", "yes", "TRUE or FALSE, not 'yes'"),
        ("overwrite", "NULL", "TRUE or FALSE, not NULL"),
        ("freeze_feature_encoder", "never", "auto or TRUE or FALSE, not 'never'"),
        ("precision", "bf32", "auto, fp32, bf16, fp16, not 'bf32'"),
        ("precision", "16", "auto, fp32, bf16, fp16, not 16"),
        ("device", "gpu", "auto, cpu, cuda, cuda:N, not 'gpu'"),
        (
            "validation",
            "1",
            "a share from 0 to below 1 or a query in quotes, not 1",
        ),
        (
            "validation",
            "FALSE",
            "a share from 0 to below 1 or a query in quotes, not FALSE",
        ),
        (
            "validation",
            "' '",
            "a share from 0 to below 1 or a query in quotes, not ' '",
        ),
        ("max_steps", "0", "a whole number, 1 or more, or NULL, not 0"),
        ("time_limit", "-1", "a number above 0, or NULL, not -1"),
        ("text_col", "NULL", "the name of a column, not NULL"),
        ("text_col", "''", "the name of a column, not ''"),
        ("audio_col", "1", "the name of a column, or NULL, not 1"),
    ],
)
def test_wrong_value_is_refused_with_what_is_allowed(option, written, message):
    column = 26 + len(option) + 1
    told = refusal(BuildOptions, f"{option}={written}")
    head, line, caret = told.split("\n")
    assert head == f"option {option} takes {message} (line 1, column {column})"
    assert line[caret.index("^") :].startswith(written)


def test_a_number_too_large_for_a_float_is_refused():
    assert "takes a number above 0, or NULL, not 1000" in refusal(
        BuildOptions, f"learning_rate=1{'0' * 400}"
    )


def test_unknown_option_is_refused_with_the_nearest_name():
    assert refusal(BuildOptions, "epochs=1, bach_size=4") == (
        "BUILD MODEL has no option 'bach_size'; did you mean 'batch_size'? "
        "(line 1, column 36)\n"
        "  PREDICT USING m OPTIONS (epochs=1, bach_size=4) AS SELECT 1\n"
        "                                     ^"
    )
    assert "did you mean 'max_epochs'?" in refusal(BuildOptions, "maxepochs=1")


def test_unknown_option_like_no_other_is_refused_with_all_names():
    assert refusal(PredictOptions, "q=1").startswith(
        "PREDICT has no option 'q'; "
        "it takes audio_col, batch_size, precision, device, chunk_seconds, language, "
        "task, prompt, beam_size, language_model, lm_weight, word_bonus, hotwords, "
        "hotwords_col, hotword_weight, vad, on_error, workers, worker_cpus, channel, "
        "result_col, words, per_word, alternatives, details (line"
    )


def test_option_given_twice_is_refused_under_any_name():
    assert refusal(BuildOptions, "epochs=1, EPOCHS=1").startswith(
        "option epochs is given twice (line 1, column 36)"
    )
    assert refusal(BuildOptions, "max_epochs=1, epochs=1").startswith(
        "option epochs is given twice (line 1, column 40)"
    )


def test_parameters_are_checked_like_literals():
    assert bound(BuildOptions, "epochs=?, seed=?", (2, 3)).seed == 3
    assert bound(BuildOptions, "epochs=:e", {"e": np.int64(2)}) == BuildOptions(
        epochs=2
    )
    assert type(bound(BuildOptions, "warmup=?", (np.float32(0.5),)).warmup) is float
    told = refusal(BuildOptions, "epochs=:e", {"e": "2"})
    assert told.startswith("option epochs takes a whole number, 1 or more, not '2'")
    assert "not [1]" in refusal(BuildOptions, "validation=?", ([1],))


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("'500MB'", 500_000_000),
        ("'2 GiB'", 2 << 30),
        ("'1.5kb'", 1500),
        ("'16B'", 16),
        ("0", 0),
        ("123", 123),
    ],
)
def test_a_size_is_taken_with_its_unit_or_in_bytes(written, size):
    assert bound(BuildOptions, f"feature_cache={written}").feature_cache == size


@pytest.mark.parametrize("written", ["'1'", "'1iB'", "'much'", "-1", "'-1GB'", "NULL"])
def test_a_size_that_is_none_is_refused(written):
    told = refusal(BuildOptions, f"feature_cache={written}")
    assert "option feature_cache takes a size such as '500MB' or '2GiB', or" in told


@pytest.mark.parametrize("cls", CLASSES)
def test_every_default_is_a_value_the_option_takes(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata["accepts"].read(field.default) == field.default


@pytest.mark.parametrize("cls", CLASSES)
def test_every_option_is_documented(cls):
    assert cls.statement
    for field in dataclasses.fields(cls):
        assert field.metadata["doc"]
        assert str(field.metadata["accepts"])
        assert isinstance(field.metadata["unit"], str)
        assert isinstance(field.metadata["aliases"], tuple)


@pytest.mark.parametrize("cls", CLASSES)
def test_options_can_be_kept_as_json(cls):
    assert cls(**json.loads(json.dumps(as_dict(cls())))) == cls()


def test_trainings_are_compared_by_the_options_that_shape_the_weights():
    options = bound(BuildOptions, "epochs=3, text_col=words, overwrite=TRUE")
    shaping = shaping_weights(options)
    assert shaping["epochs"] == 3
    assert {*as_dict(options)} - {*shaping} == {
        "audio_col",
        "text_col",
        "check_only",
        "device",
        "feature_cache",
        "gradient_checkpointing",
        "overwrite",
        "resume",
        "worker_cpus",
        "workers",
    }


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        BuildOptions().epochs = 2
