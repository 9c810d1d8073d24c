"""Bases and stored models: every way to open one, and every way that fails."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from toys import KINDS, write_config

from thanosql.catalog.bases import BASES
from thanosql.errors import (
    AudioError,
    DataError,
    ModelNotFoundError,
    NotSupportedError,
    OperationalError,
)
from thanosql.speech.libraries import require_libraries
from thanosql.speech.opening import hub
from thanosql.speech.opening.opening import open_base, open_files
from thanosql.speech.recognizers.recognizer import quiet

TEXTS = ["Hello World", "it's eleven"]


def no_texts():
    pytest.fail("a base with a vocabulary needs no texts")


def waveform(seconds: float = 1.0) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal(int(16_000 * seconds))
    return (noise * 0.1).astype(np.float32)


def scores(recognizer) -> torch.Tensor:
    with torch.no_grad():
        return recognizer.logits([recognizer.features(waveform())])[0]


def transcript(recognizer) -> str:
    with torch.no_grad():
        features = [recognizer.features(waveform())]
        return recognizer.recognize(features, recognizer.decoding())[0].text


def contents(directory: Path) -> dict[str, bytearray]:
    return {path.name: bytearray(path.read_bytes()) for path in directory.iterdir()}


@pytest.fixture
def fine_tuned(tmp_path):
    """Return the directory of a small model with weights and vocabulary."""
    torch.manual_seed(1)
    recognizer = open_base(str(write_config(tmp_path / "bare")), lambda: TEXTS)
    # The unknown token is never spelled: we drop it, transformers writes "[UNK]".
    recognizer.model.lm_head.bias.data[recognizer.tokenizer.unk_token_id] = -100
    recognizer.save(tmp_path / "fine-tuned")
    return tmp_path / "fine-tuned"


def assert_same_model(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    for each in ("named_parameters", "named_buffers"):  # those not saved as well
        ours, theirs = dict(getattr(found, each)()), dict(getattr(expected, each)())
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), name
            assert ours[name].requires_grad == tensor.requires_grad, name
    # Written anew with any model that is saved: where it lay, and its numbers' type.
    settings, expected_settings = (
        re.sub(r'"(_name_or_path|dtype)": .*', "", each.config.to_json_string(False))
        for each in (found, expected)
    )
    assert settings == expected_settings


@pytest.mark.parametrize("kind", KINDS)
def test_a_bare_config_of_every_type_opens_saves_and_opens_again(kind, tmp_path):
    torch.manual_seed(1)
    recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: TEXTS)
    vocabulary = recognizer.tokenizer.get_vocab()
    assert [*vocabulary] == ["[PAD]", "[UNK]", "|", *"'dehilnorstvw"]
    assert recognizer.blank == recognizer.model.config.pad_token_id == 0
    assert recognizer.model.config.vocab_size == len(vocabulary)
    assert not recognizer.model.training
    names = {name for name, _ in recognizer.model.named_parameters()}
    assert recognizer.fresh >= names
    features = recognizer.features(waveform())
    assert features.dtype == torch.float32
    assert features.shape[0] in (16_000, 100, 98, 50, 49)

    with torch.no_grad():
        for name, parameter in recognizer.model.named_parameters():
            if name.endswith(("lm_head.bias", "ctc_head.bias", "encoder.out.bias")):
                parameter[vocabulary["[UNK]"]] = -100
    recognizer.save(tmp_path / "saved")
    again = open_base(str(tmp_path / "saved"), no_texts)
    stored = open_files(contents(tmp_path / "saved"))
    assert again.fresh == stored.fresh == frozenset()
    expected = scores(recognizer)
    torch.testing.assert_close(scores(again), expected, rtol=0, atol=0)
    torch.testing.assert_close(scores(stored), expected, rtol=0, atol=0)

    model = transformers.AutoModelForCTC.from_pretrained(tmp_path / "saved").eval()
    assert_same_model(stored.model, model)
    processor = transformers.AutoProcessor.from_pretrained(tmp_path / "saved")
    inputs = processor(waveform(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[:, : expected.shape[1]]
    torch.testing.assert_close(logits, expected)
    text = transcript(again)
    assert text
    # Up to how many spaces part two words.
    assert text.split() == processor.batch_decode(logits.argmax(-1))[0].split()


def test_the_base_in_the_package_opens_without_a_network(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    recognizer = open_base("parakeettiny", lambda: TEXTS)
    size = sum(p.numel() for p in recognizer.model.parameters())
    assert size == pytest.approx(BASES["ParakeetTiny"].parameters, rel=0.01)
    assert scores(recognizer).shape == (1, 25, len(recognizer.tokenizer))


def test_a_fine_tuned_checkpoint_keeps_its_vocabulary(fine_tuned):
    recognizer = open_base(str(fine_tuned), no_texts)
    assert recognizer.fresh == frozenset()
    assert recognizer.spelling.encode("hello world") == tuple(
        recognizer.tokenizer("hello world").input_ids
    )


def test_a_relative_path_and_a_home_path_open(fine_tuned, monkeypatch):
    monkeypatch.chdir(fine_tuned.parent)
    monkeypatch.setenv("HOME", str(fine_tuned.parent))
    assert open_base("fine-tuned", no_texts).fresh == frozenset()
    assert open_base("./fine-tuned/", no_texts).fresh == frozenset()
    assert open_base("~/fine-tuned", no_texts).fresh == frozenset()


@pytest.mark.parametrize("saved_as", ["ForPreTraining", "Model"])
def test_a_self_supervised_checkpoint_gets_a_vocabulary_and_a_last_layer(
    saved_as, tmp_path
):
    kind = getattr(transformers, f"Wav2Vec2{saved_as}")
    config = transformers.AutoConfig.from_pretrained(write_config(tmp_path / "base"))
    kind(config).save_pretrained(tmp_path / "base")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    recognizer = open_base(str(tmp_path / "base"), lambda: TEXTS)
    assert recognizer.fresh == {"lm_head.weight", "lm_head.bias"}
    loaded = recognizer.model.wav2vec2.state_dict()
    for name, tensor in weights.items():
        if name.removeprefix("wav2vec2.") in loaded:
            assert torch.equal(loaded[name.removeprefix("wav2vec2.")], tensor), name
    assert recognizer.model.lm_head.weight.std() > 0.1  # 1 / sqrt(3 * 16), not 0.02


def test_old_names_of_weight_norm_are_understood(fine_tuned):
    weights = load_file(fine_tuned / "model.safetensors")
    prefix = "wav2vec2.encoder.pos_conv_embed.conv."
    for new, old in (("original0", "weight_g"), ("original1", "weight_v")):
        weights[prefix + old] = weights.pop(f"{prefix}parametrizations.weight.{new}")
    expected = scores(open_base(str(fine_tuned), no_texts))
    save_file(weights, fine_tuned / "model.safetensors", {"format": "pt"})
    recognizer = open_base(str(fine_tuned), no_texts)
    assert recognizer.fresh == frozenset()
    assert torch.equal(scores(recognizer), expected)


def test_a_checkpoint_without_its_tokenizer_gets_a_new_vocabulary(fine_tuned):
    for name in ("vocab.json", "tokenizer_config.json"):
        (fine_tuned / name).unlink()
    old = load_file(fine_tuned / "model.safetensors")["lm_head.weight"]
    for texts in (TEXTS, ["abc"]):  # as many tokens as before, and fewer
        recognizer = open_base(str(fine_tuned), lambda texts=texts: texts)
        assert recognizer.fresh == {"lm_head.weight", "lm_head.bias"}
        assert not torch.equal(recognizer.model.lm_head.weight, old)


def test_the_seed_decides_what_fresh_weights_are(tmp_path):
    base = str(write_config(tmp_path / "bare"))
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(open_base(base, lambda: TEXTS).model.state_dict())
    name = "wav2vec2.encoder.layers.0.attention.k_proj.weight"
    assert all(
        torch.equal(a, b) for a, b in zip(*map(dict.values, drawn[:2]), strict=1)
    )
    assert not torch.equal(drawn[0][name], drawn[2][name])


@pytest.mark.parametrize("kind", ["wav2vec2", "parakeet_ctc", "wav2vec2-bert"])
def test_fresh_weights_let_the_signal_through(kind, tmp_path):
    # transformers' own draw leaves a deviation of 0.0002 behind Parakeet's front end.
    torch.manual_seed(1)
    recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: TEXTS)
    assert scores(recognizer)[0].std(dim=0).mean() > 0.05
    for name, parameter in recognizer.model.named_parameters():
        if name.endswith("q_proj.weight"):
            assert 0.1 < parameter.std() < 0.2  # 1 / sqrt(3 * 16)


def test_sharded_and_half_precision_weights_open_as_float32(fine_tuned, tmp_path):
    model = transformers.AutoModelForCTC.from_pretrained(fine_tuned).half()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="8KB")
    for name in ("vocab.json", "tokenizer_config.json", "preprocessor_config.json"):
        shutil.copy(fine_tuned / name, tmp_path / "sharded" / name)
    files = contents(tmp_path / "sharded")
    assert "model.safetensors.index.json" in files
    expected = scores(open_base(str(fine_tuned), no_texts))
    for recognizer in (
        open_base(str(tmp_path / "sharded"), no_texts),
        open_files(files),
    ):
        assert {p.dtype for p in recognizer.model.parameters()} == {torch.float32}
        torch.testing.assert_close(scores(recognizer), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_model_of_every_type_needs_no_search_for_its_weights(
    kind, tmp_path, monkeypatch
):
    open_base(str(write_config(tmp_path, kind)), lambda: TEXTS).save(tmp_path)
    # Which takes three times as long as all the rest of opening a model.
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    assert open_files(contents(tmp_path)).fresh == frozenset()


def test_a_stored_model_shares_the_memory_it_is_given(fine_tuned):
    files = contents(fine_tuned)
    recognizer = open_files(files)
    buffer = np.frombuffer(files["model.safetensors"], np.uint8)
    first = buffer.ctypes.data
    for parameter in recognizer.model.parameters():
        assert first <= parameter.data_ptr() < first + buffer.nbytes


def test_a_stored_model_opens_from_bytes_and_memoryviews_too(fine_tuned):
    expected = transcript(open_base(str(fine_tuned), no_texts))
    for kind in (bytes, memoryview):
        files = {name: kind(content) for name, content in contents(fine_tuned).items()}
        assert transcript(open_files(files)) == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.pop("config.json"), "config.json"),
        (lambda f: f.pop("model.safetensors"), "no weights for its vocabulary"),
        (lambda f: f.pop("vocab.json"), "no tokenizer"),
        (lambda f: f["model.safetensors"].__delitem__(slice(-100, None)), "damaged"),
        (lambda f: f["model.safetensors"].__delitem__(slice(4, None)), "damaged"),
        (lambda f: f.update({"config.json": b"{"}), "'config.json' in the stored"),
        (lambda f: f.update({"../out.json": b"{}"}), "outside"),
        (lambda f: f.update({"..": b"{}"}), "outside"),
    ],
)
def test_a_damaged_stored_model_says_so(spoil, message, fine_tuned):
    files = contents(fine_tuned)
    spoil(files)
    with pytest.raises((DataError, ModelNotFoundError), match=message):
        open_files(files)


def test_a_stored_model_without_one_of_its_tensors_is_damaged(fine_tuned):
    weights = load_file(fine_tuned / "model.safetensors")
    del weights["wav2vec2.encoder.layer_norm.bias"]
    save_file(weights, fine_tuned / "model.safetensors")
    with pytest.raises(DataError, match=r"no weights for .*layer_norm\.bias"):
        open_files(contents(fine_tuned))
    assert open_base(str(fine_tuned), no_texts).fresh == {
        "wav2vec2.encoder.layer_norm.bias"
    }


def test_weights_of_another_model_are_refused(fine_tuned):
    save_file({"lm_head.weight": torch.zeros(3, 3)}, fine_tuned / "model.safetensors")
    with pytest.raises(DataError, match="cannot be opened"):
        open_base(str(fine_tuned), no_texts)


def test_a_last_layer_that_does_not_fit_the_tokenizer_is_refused(fine_tuned):
    vocabulary = json.loads((fine_tuned / "vocab.json").read_text("utf-8"))
    vocabulary["z"] = len(vocabulary)
    (fine_tuned / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    with pytest.raises(DataError, match="do not belong together"):
        open_base(str(fine_tuned), no_texts)


def test_the_blank_is_the_tokenizers_padding_token(fine_tuned):
    config = json.loads((fine_tuned / "config.json").read_text("utf-8"))
    config["pad_token_id"] = 3  # as many published configurations say by mistake
    (fine_tuned / "config.json").write_text(json.dumps(config), "utf-8")
    recognizer = open_base(str(fine_tuned), no_texts)
    assert recognizer.blank == recognizer.model.config.pad_token_id == 0


def test_a_feature_extractor_of_another_kind_is_refused(fine_tuned):
    transformers.ParakeetFeatureExtractor().save_pretrained(fine_tuned)
    (fine_tuned / "processor_config.json").unlink()
    with pytest.raises(NotSupportedError, match="the model takes input_values of"):
        open_base(str(fine_tuned), no_texts)


@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")  # numpy's mean of no frames
@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.01])
@pytest.mark.parametrize("kind", ["parakeet_ctc", "wav2vec2-bert", "lasr_ctc"])
def test_a_recording_too_short_for_a_frame_is_an_audio_error(kind, seconds, tmp_path):
    recognizer = open_base(str(write_config(tmp_path / "bare", kind)), lambda: TEXTS)
    with pytest.raises(AudioError, match="too short"):
        recognizer.features(waveform(seconds))


class Trap:
    """Pickled, a class that writes a file when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.ckpt", "last.pt"])
def test_a_pickled_checkpoint_is_refused_and_not_opened(name, fine_tuned, tmp_path):
    (fine_tuned / "model.safetensors").unlink()
    (fine_tuned / name).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(NotSupportedError, match=r"as .*, which can run code.*convert"):
        open_base(str(fine_tuned), no_texts)
    assert not (tmp_path / "sprung").exists()


def test_a_refused_pickle_opens_after_the_conversion_that_is_named(fine_tuned):
    torch.save(
        load_file(fine_tuned / "model.safetensors"), fine_tuned / "pytorch_model.bin"
    )
    (fine_tuned / "model.safetensors").unlink()
    with pytest.raises(NotSupportedError, match="convert it once") as refused:
        open_base(str(fine_tuned), no_texts)
    command = re.search(r"AutoModelForCTC\.\S+ \S+\)", str(refused.value))[0]
    exec(command, {"AutoModelForCTC": transformers.AutoModelForCTC, "DIR": fine_tuned})
    assert open_base(str(fine_tuned), no_texts).fresh == frozenset()


def test_what_a_training_pickled_beside_the_weights_does_not_matter(
    fine_tuned, tmp_path
):
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in ("training_args.bin", "optimizer.pt", "pytorch_model.bin"):
        (fine_tuned / name).write_bytes(trap)
    assert open_base(str(fine_tuned), no_texts).fresh == frozenset()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("file", "auto", "name"),
    [
        ("config.json", "AutoConfig", "code.Config"),
        ("config.json", "AutoModelForCTC", "code.Model"),
        ("tokenizer_config.json", "AutoTokenizer", ["code.Tokenizer", None]),
        ("preprocessor_config.json", "AutoFeatureExtractor", "code.Extractor"),
    ],
)
def test_code_that_comes_with_a_model_is_never_run(file, auto, name, fine_tuned):
    sprung = fine_tuned / "sprung"
    (fine_tuned / "code.py").write_text(
        f"open({str(sprung)!r}, 'w').close()\nConfig = Model = Tokenizer = int\n"
    )
    settings = json.loads((fine_tuned / file).read_text("utf-8"))
    settings["auto_map"] = {auto: name}
    (fine_tuned / file).write_text(json.dumps(settings), "utf-8")
    (fine_tuned / "processor_config.json").unlink()
    with suppress(DataError):  # some parts have a class of transformers to fall back on
        open_base(str(fine_tuned), no_texts)
    assert not sprung.exists()


def test_a_model_that_is_no_recognizer_is_refused(tmp_path):
    config = {"model_type": "bert", "auto_map": {"AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(NotSupportedError, match="'bert', which is no recognizer"):
        open_base(str(tmp_path), no_texts)


def test_an_unknown_base_is_named_with_the_nearest_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelNotFoundError, match="did you mean 'Wav2Vec2En'"):
        open_base("Wav2Vec2Em", no_texts)
    with pytest.raises(ModelNotFoundError, match=f"no directory .*{tmp_path.name}"):
        open_base("./nowhere", no_texts)
    with pytest.raises(ModelNotFoundError, match=r"it has no config\.json"):
        open_base(str(tmp_path), no_texts)
    Path("config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="give the directory it lies in"):
        open_base("config.json", no_texts)


@pytest.mark.parametrize("name", ["Wav2Vec2En", "Wav2Vec2Ko"])
def test_the_names_of_bases_know_no_case(hub_server, name):
    for written in (name.lower(), name.upper()):
        with pytest.raises(
            ModelNotFoundError, match=f"no model '{BASES[name].source}'"
        ):
            open_base(written, no_texts)


def test_opening_says_nothing_and_leaves_the_settings_of_transformers(
    fine_tuned, capfd
):
    before = transformers.logging.get_verbosity()
    open_base(str(fine_tuned), no_texts).save(fine_tuned.parent / "again")
    assert transformers.logging.get_verbosity() == before
    assert transformers.logging.is_progress_bar_enabled()
    assert capfd.readouterr() == ("", "")


def test_a_pair_of_torch_and_torchaudio_that_do_not_fit_is_named():
    def load(library: str) -> None:
        if library == "torchaudio":
            message = "PyTorch has CUDA version 13.2 whereas TorchAudio has 13.0"
            raise RuntimeError(message)

    with pytest.raises(
        NotSupportedError,
        match=rf"{torch.__version__.split('+')[0]}.*13\.2.*install 'torch>=2\.9,<2\.15"
        r".*or 'torchaudio>=2\.11\.1', which fits any torch of the same CUDA major",
    ):
        require_libraries(load)


def test_speech_after_the_main_thread_has_ended_says_so():
    code = """if True:
        import threading
        from thanosql import NotSupportedError
        from thanosql.speech.libraries import require_libraries

        def late():
            threading.main_thread().join()
            try:
                require_libraries()
            except NotSupportedError as error:
                print(error)

        threading.Thread(target=late).start()
        """
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert "main thread has ended" in said
    assert "join the threads" in said


# The hub, as a small server of our own speaks for it.


class Hub(BaseHTTPRequestHandler):
    """Serves ``repositories``: "org/name@revision" -> name of a file -> content."""

    repositories: dict[str, dict[str, bytes]]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        if path.startswith("api/models/"):
            self.answer_api(path.removeprefix("api/models/"))
            return
        repository, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        content = self.find(repository, revision).get(name)
        if repository.startswith("gated/"):
            self.send(None, error="GatedRepo", status=403)
            return
        self.send(content, f"{revision}-{name}", commit=revision)

    do_HEAD = do_GET

    def answer_api(self, path: str) -> None:
        if path.endswith("/discussions"):
            offers = self.offers(path.removesuffix("/discussions"))
            self.send_json({"discussions": offers, "count": len(offers), "start": 0})
            return
        separator = "/tree/" if "/tree/" in path else "/revision/"
        repository, _, revision = path.partition(separator)
        revision = revision.replace("%2F", "/") or "main"
        files = self.find(repository, revision)
        entries = [
            {"type": "file", "path": name, "rfilename": name, "size": len(content)}
            | {"oid": f"{hash(content)}", "blobId": f"{hash(content)}"}
            for name, content in files.items()
        ]
        if not files:
            self.send(None, error="RepoNotFound")
        elif separator == "/tree/":
            self.send_json(entries)
        else:
            sha = self.sha(revision)
            self.send_json({"id": repository, "sha": sha, "siblings": entries})

    def offers(self, repository: str) -> list[dict[str, object]]:
        if f"{repository}@refs/pr/7" not in self.repositories:
            return []
        offer = {"num": 7, "title": "safetensors", "status": "open"}
        offer |= {"author": {"name": "SFconvertbot"}, "isPullRequest": True}
        offer |= {"repo": {"name": repository, "type": "model"}}
        offer |= {"createdAt": "2026-01-01T00:00:00.000Z"}
        return [offer]

    @staticmethod
    def sha(revision: str) -> str:
        return revision.encode().hex().ljust(40, "0")[:40]

    def find(self, repository: str, revision: str) -> dict[str, bytes]:
        for key, files in self.repositories.items():
            name, _, served = key.partition("@")
            if name == repository and revision in (served, self.sha(served)):
                return files
        return {}

    def send_json(self, value: object) -> None:
        self.send(json.dumps(value).encode(), "json")

    def send(
        self,
        content: bytes | None,
        etag: str = "",
        error: str = "",
        commit: str = "",
        status: int = 404,
    ) -> None:
        self.send_response(status if content is None else 200)
        self.send_header("ETag", f'"{etag}"')
        self.send_header("X-Repo-Commit", commit)
        self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """Return the repositories of a hub that the client is told to use."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    endpoint = f"http://127.0.0.1:{server.server_port}"
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Hub, "repositories", {}, raising=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield Hub.repositories
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_base_of_the_hub_is_fetched_and_then_kept(
    hub_server, fine_tuned, monkeypatch, capfd
):
    files = {name: bytes(content) for name, content in contents(fine_tuned).items()}
    unwanted = {"README.md": b"#", "adapter.xx.safetensors": b"x", "old/a.json": b"{}"}
    hub_server["some/model@main"] = files | unwanted | {"pytorch_model.bin": b"trap"}
    expected = transcript(open_base(str(fine_tuned), no_texts))
    assert transcript(open_base("some/model", no_texts)) == expected
    fetched = hub.download("some/model")
    assert {path.name for path in fetched.iterdir()} == set(files)
    assert capfd.readouterr() == ("", "")
    hub_server.clear()  # from here on, the hub has forgotten it
    assert transcript(open_base("some/model", no_texts)) == expected
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert transcript(open_base("some/model", no_texts)) == expected


def test_a_pickle_on_the_hub_is_replaced_by_the_hubs_own_conversion(
    hub_server, fine_tuned
):
    files = {name: bytes(content) for name, content in contents(fine_tuned).items()}
    safetensors = files.pop("model.safetensors")
    pickled = files | {"pytorch_model.bin": b"old"}
    hub_server["some/model@main"] = pickled
    with pytest.raises(NotSupportedError, match="some/model holds its weights only as"):
        open_base("some/model", no_texts)
    hub_server["some/model@refs/pr/7"] = {
        **files,
        "pytorch_model.bin": b"older",  # converted from what has changed since
        "model.safetensors": safetensors,
    }
    with pytest.raises(NotSupportedError, match="some/model holds its weights only as"):
        open_base("some/model", no_texts)
    hub_server["some/model@refs/pr/7"]["pytorch_model.bin"] = b"old"
    assert open_base("some/model", no_texts).fresh == frozenset()
    hub_server.clear()
    assert open_base("some/model", no_texts).fresh == frozenset()


def test_a_model_the_hub_does_not_have_is_not_found(hub_server):
    with pytest.raises(ModelNotFoundError, match="has no model 'some/thing'"):
        open_base("some/thing", no_texts)


def test_a_model_behind_terms_says_how_to_accept_them(hub_server):
    hub_server["gated/model@main"] = {"config.json": b"{}"}
    with pytest.raises(OperationalError, match=r"accepted its terms.*hf auth login"):
        open_base("gated/model", no_texts)


def test_a_hub_that_does_not_answer_is_not_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        with pytest.raises(OperationalError, match="cannot be fetched") as caught:
            open_base("Wav2Vec2En", no_texts)
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # asked once, and not again
            silent.accept()
    for way_out in ("hf download", "HF_HOME", "HF_ENDPOINT", "stored", "WhisperTinyEn"):
        assert way_out in str(caught.value)


def test_offline_mode_is_named_as_the_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OperationalError, match=r"HF_HUB_OFFLINE.*neither in the cache"):
        open_base("Wav2Vec2Ko", no_texts)


def test_a_fault_of_the_extractor_is_not_blamed_on_a_long_enough_recording(tmp_path):
    recognizer = open_base(str(write_config(tmp_path)), lambda: TEXTS)

    def runs_out(waveform, **_options):
        message = "DefaultCPUAllocator: not enough memory"
        raise RuntimeError(message)

    recognizer.feature_extractor = runs_out
    with pytest.raises(AudioError, match="too short for the model"):
        recognizer.features(waveform(0.01))
    with pytest.raises(RuntimeError, match="not enough memory"):
        recognizer.features(waveform(1.0))


def test_two_threads_never_switch_the_settings_of_the_process_together():
    verbosity = transformers.utils.logging.get_verbosity()
    has_entered, may_leave = threading.Event(), threading.Event()

    def open_another():
        with quiet():
            has_entered.set()
            may_leave.wait(10)

    with quiet():
        thread = threading.Thread(target=open_another)
        thread.start()
        is_together = has_entered.wait(0.2)
    may_leave.set()
    thread.join()
    assert not is_together
    assert has_entered.is_set()
    assert transformers.utils.logging.get_verbosity() == verbosity
