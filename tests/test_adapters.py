"""Adapters in statements: stored as a difference, used, shared, shipped, undone."""

import json
import shutil
import threading

import pytest
import torch
from tones import spoken
from toys import whisper

import thanosql
from thanosql import speech
from thanosql.execution import context
from thanosql.speech import loading
from thanosql.speech.recognizers.recognizer import quiet

TRAIN = "epochs=1, batch_size=4, validation=0.3"
ROWS = "AS SELECT * FROM calls"


def build(connection, name, base="m", more="adapter=4"):
    return connection.execute(
        f'BUILD MODEL {name} USING "{base}" OPTIONS ({TRAIN}, {more}) {ROWS}'
    ).fetchall()


def facts(connection, name):
    return dict(connection.execute(f"DESCRIBE MODEL {name}").fetchall())


def texts(connection, name):
    return connection.execute(
        f"SELECT predicted FROM (PREDICT USING {name} AS SELECT audio FROM calls)"
    ).fetchall()


def digest(connection, name):
    return facts(connection, name)["sha256"]


@pytest.fixture
def fresh(monkeypatch):
    """Return the models that are loaded from now on: none yet."""
    models = loading._LoadedModels()
    monkeypatch.setattr(loading, "_loaded", models)
    return models


@pytest.fixture(scope="session")
def _adapted(_calls, tmp_path_factory):
    path = tmp_path_factory.mktemp("adapted") / "calls.db"
    shutil.copy(_calls, path)
    with thanosql.connect(path) as connection:
        build(connection, "a", more="adapter=4, learning_rate=0.03")
        assert texts(connection, "a") != texts(connection, "m")
    return path


@pytest.fixture
def adapted(_adapted, fresh, tmp_path):
    """Return a connection: table calls, model m, and an adapter of it that differs."""
    path = tmp_path / "adapted.db"
    shutil.copy(_adapted, path)
    connection = thanosql.connect(path)
    yield connection
    connection.close()


def test_an_adapter_is_stored_without_its_base(adapted):
    told, base = facts(adapted, "a"), facts(adapted, "m")
    assert told["base"] == told["adapter_of"] == told["parent"] == "m"
    assert told["base_sha256"] == base["sha256"]
    assert told["base_parameters"] == base["parameters"]
    assert told["base_bytes"] == base["bytes"]
    assert told["rank"] == told["option adapter"] == 4
    assert told["architecture"] == f"{base['architecture']}, LoRA"
    # Two layers, four projections of 32 x 32 each, in rank 4.
    assert told["parameters"] == 2 * 4 * 4 * (32 + 32)
    assert 4 * told["parameters"] < told["bytes"] < 4 * told["parameters"] + 6_000
    assert "adapter_of" not in base
    (kept,) = adapted.execute(
        "SELECT sum(length(data)) FROM thanosql_files JOIN thanosql_models AS m "
        "ON m.id = model_id WHERE name = 'a'"
    ).fetchone()
    assert kept == told["bytes"]


def test_the_default_is_rank_8_at_a_rate_of_its_own(calls):
    build(calls, "a", more="adapter=TRUE")
    told = facts(calls, "a")
    assert told["rank"] == told["option adapter"] == 8
    assert told["option learning_rate"] == 1e-3
    assert told["option freeze_encoder"] == 0


def test_the_base_stays_as_it_is(adapted):
    before = digest(adapted, "m")
    build(adapted, "b", more="adapter=2")
    adapted.execute(f"FIT MODEL b USING b OPTIONS ({TRAIN}) {ROWS}")
    assert digest(adapted, "m") == before
    assert speech.open_stored(files(adapted, "m"))  # which compares the digest


def files(connection, name):
    from thanosql.store.models import ModelStore

    store = ModelStore(connection.apsw)
    model = store.get(name)
    return speech.StoredFiles(
        model.sha256, lambda: store.read_settings(model), lambda: store.read(model)
    )


def test_adapters_share_the_tensors_of_one_base_that_is_read_once(
    adapted, fresh, monkeypatch
):
    build(adapted, "b", more="adapter=2, learning_rate=0.03")
    opened = []
    open_stored = loading.open_stored
    monkeypatch.setattr(
        loading, "open_stored", lambda s: opened.append(s) or open_stored(s)
    )
    fresh._models.clear()
    fresh._adapters.clear()
    found = {name: texts(adapted, name) for name in ("a", "b", "m")}
    assert len({tuple(each) for each in found.values()}) == 3
    assert len(opened) == 1
    (base,) = (each.recognizer.model for each in fresh._models.values())
    own = {p.data_ptr() for p in base.parameters()}
    assert len(fresh._adapters) == 2
    for loaded in fresh._adapters.values():
        others = [
            n
            for n, p in loaded.recognizer.model.named_parameters()
            if p.data_ptr() not in own
        ]
        assert len(others) == 8  # two layers, four projections each
        assert all(".attention." in name for name in others)


def test_threads_use_several_adapters_at_once(adapted, fresh):
    build(adapted, "b", more="adapter=2, learning_rate=0.03")
    wanted = {name: texts(adapted, name) for name in "abm"}
    fresh._models.clear()
    fresh._adapters.clear()
    (_, _, path), *_ = adapted.execute("PRAGMA database_list").fetchall()
    found = []

    def read(name):
        with thanosql.connect(path) as connection:
            found.append((name, texts(connection, name)))

    threads = [threading.Thread(target=read, args=(n,)) for n in "abmabmab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(text == wanted[name] for name, text in found)


def test_adapters_are_let_go_with_their_base(adapted, fresh):
    texts(adapted, "a")
    assert len(fresh._adapters) == 1
    for name, rate in (("x", 1e-6), ("y", 2e-6)):
        build(adapted, name, more=f"learning_rate={rate}")
        texts(adapted, name)
    assert len(fresh._models) == 2
    assert not fresh._adapters
    assert texts(adapted, "a")  # loads both again


def test_fit_goes_on_with_the_adapter(adapted):
    adapted.execute(f"FIT MODEL n USING a OPTIONS ({TRAIN}) {ROWS}")
    told = facts(adapted, "n")
    assert (told["adapter_of"], told["parent"], told["rank"]) == ("m", "a", 4)
    assert told["parent_sha256"] == digest(adapted, "a")
    first = digest(adapted, "a")
    adapted.execute(f"FIT MODEL a USING a OPTIONS ({TRAIN}) {ROWS}")
    assert digest(adapted, "a") == told["sha256"] != first


@pytest.mark.parametrize(
    "statement",
    [
        f"FIT MODEL n USING a OPTIONS ({TRAIN}, adapter=FALSE, learning_rate=1e-9)",
        f"BUILD MODEL n USING a OPTIONS ({TRAIN}, learning_rate=1e-9)",
    ],
)
def test_a_whole_model_goes_on_from_the_sums(adapted, statement):
    adapted.execute(f"{statement} {ROWS}")
    assert texts(adapted, "n") == texts(adapted, "a")
    assert facts(adapted, "n")["parameters"] == facts(adapted, "m")["parameters"]
    assert "adapter_of" not in facts(adapted, "n")
    adapted.execute("DROP MODEL a")
    adapted.execute("DROP MODEL m")
    assert texts(adapted, "n")


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("BUILD MODEL n USING a OPTIONS (adapter=TRUE)", "'a' is itself an adapter"),
        ("FIT MODEL n USING a OPTIONS (adapter=8)", "an adapter of rank 4"),
        ("FIT MODEL m USING m OPTIONS (adapter=8)", "the model of its own name"),
        ("BUILD MODEL M USING m OPTIONS (adapter=8)", "the model of its own name"),
        ("BUILD MODEL n USING m OPTIONS (adapter=-1)", "from 2 to 1024"),
        (
            "BUILD MODEL n USING m OPTIONS (adapter=8, freeze_encoder=TRUE)",
            "nothing is left to adapt",
        ),
        (
            "FIT MODEL n USING a OPTIONS (freeze_encoder=TRUE)",
            "nothing is left to adapt",
        ),
    ],
)
def test_what_cannot_be_an_adapter_is_an_option_error(adapted, statement, message):
    with pytest.raises(thanosql.OptionError, match=message):
        adapted.execute(f"{statement} {ROWS}")


def test_a_base_without_weights_cannot_be_adapted(calls):
    message = r"no weights yet for .*then an adapter USING that model"
    with pytest.raises(thanosql.NotSupportedError, match=message):
        build(calls, "n", "ParakeetTiny")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP MODEL M",
        "DROP MODEL IF EXISTS m",
        f"FIT MODEL m USING m OPTIONS ({TRAIN}) {ROWS}",
        f"BUILD OR REPLACE MODEL m USING a OPTIONS ({TRAIN}) {ROWS}",
        "IMPORT MODEL m FROM '{base}' OPTIONS (overwrite=TRUE)",
        "GET MODEL TinyEn OPTIONS (model_name='m', overwrite=TRUE)",
    ],
)
def test_a_base_with_adapters_is_neither_dropped_nor_replaced(adapted, base, statement):
    build(adapted, "b", more="adapter=2")
    before = adapted.execute("LIST MODELS").fetchall()
    message = "base of the adapters 'a', 'b', .*DROP MODEL them first"
    with pytest.raises(thanosql.IntegrityError, match=message):
        adapted.execute(statement.format(base=base))
    assert adapted.execute("LIST MODELS").fetchall() == before


def test_after_its_adapters_a_base_is_dropped(adapted):
    adapted.execute("DROP MODEL a")
    adapted.execute("DROP MODEL m")
    assert adapted.execute("LIST MODELS").fetchall() == []


def test_a_copy_of_the_base_under_another_name_is_as_good(adapted, fresh, tmp_path):
    before = texts(adapted, "a")
    adapted.execute("EXPORT MODEL m TO ?", (str(tmp_path / "m"),))
    adapted.execute("IMPORT MODEL twin FROM ?", (str(tmp_path / "m"),))
    adapted.execute("DROP MODEL m")
    fresh._models.clear()
    fresh._adapters.clear()
    assert texts(adapted, "a") == before
    assert facts(adapted, "a")["adapter_of"] == "twin"
    with pytest.raises(thanosql.IntegrityError, match="'twin' cannot be dropped"):
        adapted.execute("DROP MODEL twin")


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM (PREDICT USING a AS SELECT audio FROM calls)",
        "EVALUATE USING a AS SELECT audio, text FROM calls",
        f"FIT MODEL n USING a OPTIONS ({TRAIN}) {ROWS}",
        f"BUILD MODEL n USING a OPTIONS ({TRAIN}) {ROWS}",
        "EXPORT MODEL a TO '{target}'",
    ],
)
def test_without_its_base_an_adapter_says_what_is_missing(adapted, statement, tmp_path):
    sha256 = digest(adapted, "m")
    # By plain SQL, since DROP MODEL refuses it.
    adapted.execute("DELETE FROM thanosql_models WHERE name = 'm'")
    adapted.commit()
    message = f"'a' is an adapter of 'm', whose digest begins '{sha256[:12]}', and it"
    with pytest.raises(thanosql.ModelNotFoundError, match=message) as caught:
        adapted.execute(statement.format(target=tmp_path / "out")).fetchall()
    assert "is not stored any more; bring that model back" in str(caught.value)
    assert facts(adapted, "a")["adapter_of"] == "m"
    adapted.execute("DROP MODEL a")


def test_a_base_that_was_changed_is_another(adapted, base):
    adapted.execute("DELETE FROM thanosql_models WHERE name = 'm'")
    adapted.commit()
    adapted.execute("GET MODEL TinyEn OPTIONS (model_name='m')")
    with pytest.raises(
        thanosql.ModelNotFoundError, match="stored under that name now is another"
    ):
        texts(adapted, "a")


def test_a_base_that_goes_while_its_adapter_trains_is_missed(calls, monkeypatch, fresh):
    train = speech.train

    def dropping(*arguments):
        yield from train(*arguments)
        calls.apsw.execute("DELETE FROM thanosql_models WHERE name = 'm'")

    monkeypatch.setattr(speech, "train", dropping)
    with pytest.raises(thanosql.ModelNotFoundError, match="cannot be stored: model"):
        build(calls, "a")
    assert calls.execute("LIST MODELS").fetchall() == []


def test_a_rolled_back_adapter_is_gone(calls):
    calls.execute("BEGIN")
    build(calls, "a")
    calls.rollback()
    assert [row[0] for row in calls.execute("LIST MODELS")] == ["m"]
    calls.execute("DROP MODEL m")


def test_a_directory_is_stored_as_a_base_first(calls, base, fresh):
    build(calls, "a", str(base))
    told = facts(calls, "a")
    assert told["adapter_of"] == told["base"] == str(base)
    names = {row[0] for row in calls.execute("LIST MODELS")}
    assert names == {"a", "m", str(base)}
    assert texts(calls, "a")
    build(calls, "b", str(base))
    assert facts(calls, "b")["base_sha256"] == told["base_sha256"]


def test_check_only_stores_no_base(calls, base):
    found = calls.execute(
        f"BUILD MODEL a USING '{base}' OPTIONS ({TRAIN}, adapter=4, check_only=TRUE) "
        f"{ROWS}"
    ).fetchall()
    counts = {finding: value for finding, _, value in found}
    assert counts["parameters to train"] == 2 * 4 * 4 * (32 + 32)
    assert [row[0] for row in calls.execute("LIST MODELS")] == ["m"]


def test_a_base_of_the_package_is_not_stored(calls, fresh, monkeypatch, tmp_path):
    build(calls, "a", "tinyen")
    told = facts(calls, "a")
    assert told["adapter_of"] == told["base"] == "TinyEn"
    assert [row[0] for row in calls.execute("LIST MODELS")] == ["a", "m"]
    assert texts(calls, "a")
    assert told["base_bytes"] > 100 * told["bytes"] / 4
    # Another thanosql may come with another TinyEn.
    monkeypatch.setattr(context, "package_digest", lambda _: "0" * 64)
    with pytest.raises(thanosql.ModelNotFoundError, match="with this thanosql is anot"):
        texts(calls, "a")


def test_an_adapter_may_be_the_first_model_of_a_database(connection):
    connection.execute("CREATE TABLE calls (audio BLOB, text TEXT)")
    connection.executemany("INSERT INTO calls VALUES (?, ?)", spoken(8))
    connection.commit()
    build(connection, "a", "TinyEn")
    assert texts(connection, "a")


def test_a_resumed_training_of_an_adapter_ends_as_an_uninterrupted_one(
    calls, monkeypatch
):
    statement = f"BUILD MODEL new USING m OPTIONS ({TRAIN}, adapter=4, {{more}}) {ROWS}"
    statement = statement.replace("epochs=1", "epochs=3")
    calls.execute(statement.format(more="seed=1"))
    expected = digest(calls, "new")
    calls.execute("DROP MODEL new")
    train = speech.train

    def breaking(*arguments):
        epochs = train(*arguments)
        yield next(epochs)
        epochs.close()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(speech, "train", breaking)
        with pytest.raises(KeyboardInterrupt):
            calls.execute(statement.format(more="seed=1"))
    calls.execute(statement.format(more="seed=1, resume=TRUE"))
    assert digest(calls, "new") == expected


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{}", b"\xff", b'{"base": "m", "sha256": 3, "rank": 4}'],
    ids=str,
)
def test_a_damaged_base_json_is_named_and_its_adapter_dropped(adapted, content):
    adapted.execute(
        "UPDATE thanosql_files SET data = ? WHERE path = 'base.json'", (content,)
    )
    adapted.commit()
    with pytest.raises(thanosql.DatabaseError, match=r'base\.json is .*DROP MODEL "a"'):
        texts(adapted, "a")
    adapted.execute("DROP MODEL a")
    assert [row[0] for row in adapted.execute("LIST MODELS")] == ["m"]


def test_an_adapter_that_claims_to_be_its_own_base_is_without_one(adapted):
    own = json.dumps({"base": "a", "sha256": digest(adapted, "a"), "rank": 4})
    adapted.execute(
        "UPDATE thanosql_files SET data = ? WHERE path = 'base.json'", (own.encode(),)
    )
    adapted.commit()
    with pytest.raises(thanosql.ModelNotFoundError, match="stored under that name now"):
        texts(adapted, "a")


# Export and import


def test_export_merges_into_a_whole_model(adapted, tmp_path):
    ((name, directory, count, size),) = adapted.execute(
        "EXPORT MODEL a TO ?", (str(tmp_path / "out"),)
    ).fetchall()
    written = list((tmp_path / "out").iterdir())
    assert (name, directory, count) == ("a", str(tmp_path / "out"), len(written))
    assert size == sum(path.stat().st_size for path in written)
    adapted.execute("IMPORT MODEL whole FROM ?", (str(tmp_path / "out"),))
    assert texts(adapted, "whole") == texts(adapted, "a")
    assert facts(adapted, "whole")["parameters"] == facts(adapted, "m")["parameters"]


def test_an_adapter_goes_out_and_in_as_it_is(adapted, tmp_path):
    out = tmp_path / "out"
    adapted.execute("EXPORT MODEL a TO ? OPTIONS (adapter=TRUE)", (str(out),))
    assert {path.name for path in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "base.json",
    }
    adapted.execute("IMPORT MODEL again FROM ?", (str(out),))
    assert digest(adapted, "again") == digest(adapted, "a")
    assert facts(adapted, "again")["adapter_of"] == "m"
    adapted.execute("DROP MODEL a")
    adapted.execute("DROP MODEL again")
    adapted.execute("DROP MODEL m")
    with pytest.raises(thanosql.ModelNotFoundError, match="is an adapter of 'm'"):
        adapted.execute("IMPORT MODEL again FROM ?", (str(out),))


def test_a_whole_model_cannot_be_exported_as_an_adapter(adapted, tmp_path):
    with pytest.raises(thanosql.OptionError, match="'m' is no adapter"):
        adapted.execute(f"EXPORT MODEL m TO '{tmp_path / 'o'}' OPTIONS (adapter=TRUE)")


def test_an_adapter_made_elsewhere_finds_its_base_by_name(adapted, tmp_path):
    out = tmp_path / "out"
    adapted.execute("EXPORT MODEL a TO ? OPTIONS (adapter=TRUE)", (str(out),))
    (out / "base.json").unlink()
    config = json.loads((out / "adapter_config.json").read_text())
    path = facts(adapted, "m")["base"]  # the directory that m was imported from
    for name in ("M", path):
        config["base_model_name_or_path"] = name
        (out / "adapter_config.json").write_text(json.dumps(config))
        adapted.execute("IMPORT MODEL b FROM ? OPTIONS (overwrite=TRUE)", (str(out),))
        assert texts(adapted, "b") == texts(adapted, "a")
        assert facts(adapted, "b")["adapter_of"] == "m"
    config["base_model_name_or_path"] = "openai/other"
    (out / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(
        thanosql.ModelNotFoundError, match="IMPORT MODEL 'openai/other' FROM"
    ):
        adapted.execute("IMPORT MODEL c FROM ?", (str(out),))


def test_whisper_s_adapter_keeps_its_language_and_its_window(connection, tmp_path):
    directory = whisper(tmp_path / "w", languages=("en", "ko"))
    connection.execute("CREATE TABLE calls (audio BLOB, text TEXT)")
    connection.executemany("INSERT INTO calls VALUES (?, ?)", spoken(5))
    connection.commit()
    connection.execute("IMPORT MODEL w FROM ?", (str(directory),))
    for name, more in (("a", "adapter=2"), ("f", "adapter=2, freeze_encoder=TRUE")):
        connection.execute(
            f"BUILD MODEL {name} USING w OPTIONS ({more}, language='ko', epochs=1, "
            f"window='short', learning_rate=1e-5, validation=0) {ROWS}"
        )
    told, frozen = facts(connection, "a"), facts(connection, "f")
    assert told["option freeze_encoder"] == 0
    # One layer's attention of the encoder, of the decoder two layers' two.
    assert told["parameters"] == 5 * 4 * 2 * (32 + 32)
    assert frozen["parameters"] == 4 * 4 * 2 * (32 + 32)
    ((details,),) = connection.execute(
        "SELECT details FROM (PREDICT USING a OPTIONS (details=TRUE, vad=FALSE) "
        "AS SELECT audio FROM calls LIMIT 1)"
    ).fetchall()
    assert json.loads(details)["language"] == "ko"


@pytest.fixture
def peft():
    """Return Hugging Face's package, where it is installed."""
    return pytest.importorskip("peft", reason="peft is not installed")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what will be removed
def test_peft_opens_what_export_wrote(adapted, tmp_path, peft):
    import transformers

    for name, more in (("m", ""), ("a", "OPTIONS (adapter=TRUE)")):
        adapted.execute(f"EXPORT MODEL {name} TO '{tmp_path / name}' {more}")
    with quiet():
        model = transformers.AutoModelForCTC.from_pretrained(tmp_path / "m")
    theirs = peft.PeftModel.from_pretrained(model, tmp_path / "a").merge_and_unload()
    ours = {}
    adapted.execute("EXPORT MODEL a TO ?", (str(tmp_path / "merged"),))
    with quiet():
        whole = transformers.AutoModelForCTC.from_pretrained(tmp_path / "merged")
    ours = whole.state_dict()
    state = theirs.state_dict()
    assert state.keys() == ours.keys()
    for name, tensor in state.items():
        assert torch.allclose(tensor, ours[name], atol=1e-6), name


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft calls what will be removed
@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_wrote_is_imported(adapted, tmp_path, peft, rslora):
    import transformers

    adapted.execute("EXPORT MODEL m TO ?", (str(tmp_path / "m"),))
    with quiet():
        model = transformers.AutoModelForCTC.from_pretrained(tmp_path / "m")
    torch.manual_seed(0)
    settings = peft.LoraConfig(
        r=3,
        lora_alpha=10,
        target_modules=["q_proj", "v_proj", "intermediate_dense"],
        use_rslora=rslora,
        init_lora_weights=False,
    )
    made = peft.get_peft_model(model, settings)
    made.save_pretrained(tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "base_model_name_or_path": "m"}))
    adapted.execute("IMPORT MODEL theirs FROM ?", (str(tmp_path / "a"),))
    assert facts(adapted, "theirs")["rank"] == 3
    adapted.execute("EXPORT MODEL theirs TO ?", (str(tmp_path / "merged"),))
    with quiet():
        ours = transformers.AutoModelForCTC.from_pretrained(tmp_path / "merged")
    merged = made.merge_and_unload().state_dict()
    for name, tensor in ours.state_dict().items():
        assert torch.allclose(tensor, merged[name], atol=1e-6), name
    # It is trained further, too.
    adapted.execute(f"FIT MODEL theirs USING theirs OPTIONS ({TRAIN}) {ROWS}")
    assert facts(adapted, "theirs")["rank"] == 3
