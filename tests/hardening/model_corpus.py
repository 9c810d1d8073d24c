"""Import damaged model directories in this process; print what came of each as JSON.

    python model_corpus.py DIRECTORY SEED COUNT

DIRECTORY is a whole model; COUNT files of it are damaged at random, after the
constructed damages. A line a case: name, outcome ("stored" or an error's
class), message, whether the database is as it was, growth of memory.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import socket
import struct
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import soundfile
import torch
from damage import bounded, content, damaged
from safetensors.torch import load_file, save_file

import thanosql

GIB = 2**30
HUGE = 10**9


def settings(name, **changes):
    """Return a damage that changes values of a JSON file of the model."""

    def change(directory):
        path = directory / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def text(name, written, mode="w"):
    def write(directory):
        path = directory / name
        path.unlink(missing_ok=True)
        with path.open(mode) as file:
            file.write(written)

    return write


def tensors(change):
    def spoil(directory):
        path = directory / "model.safetensors"
        state = load_file(path)
        change(state)
        save_file(state, path, {"format": "pt"})

    return spoil


def header(change):
    """Return a damage to the header of the weights."""

    def spoil(directory):
        path = directory / "model.safetensors"
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        written = change(json.loads(data[8 : 8 + size]))
        if not isinstance(written, bytes):
            written = json.dumps(written).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + data[8 + size :])

    return spoil


def edit(key, **changes):
    def change(entries):
        entries[key] |= changes
        return entries

    return header(change)


def vocabulary(change):
    def spoil(directory):
        path = directory / "vocab.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return spoil


def instead(name, make):
    def replace(directory):
        path = directory / name
        path.unlink(missing_ok=True)
        make(path)

    return replace


def socket_at(path):
    socket.socket(socket.AF_UNIX).bind(str(path))


def sharded(weight_map):
    def split(directory):
        (directory / "model.safetensors").rename(directory / "w.safetensors")
        index = {"metadata": {}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))

    return split


def removed(*names):
    def remove(directory):
        for name in names:
            (directory / name).unlink()

    return remove


def both(*damages):
    def apply(directory):
        for each in damages:
            each(directory)

    return apply


HEAD = "lm_head.weight"
JSONS = (
    "config.json",
    "vocab.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
DEEP = "[" * 100_000 + "]" * 100_000

CONSTRUCTED = {
    # Weights
    "weights: empty": text("model.safetensors", ""),
    "weights: a length that is all": text(
        "model.safetensors", b"\xff" * 8 + b"{}", "wb"
    ),
    "weights: header of 2**62 bytes": text(
        "model.safetensors", struct.pack("<Q", 2**62) + b"{}", "wb"
    ),
    "weights: a shape of 10**18": edit(HEAD, shape=[HUGE, HUGE]),
    "weights: a negative shape": edit(HEAD, shape=[-1, 32]),
    "weights: a shape that is text": edit(HEAD, shape="32"),
    "weights: offsets beyond the end": edit(HEAD, data_offsets=[0, 2**40]),
    "weights: offsets backwards": edit(HEAD, data_offsets=[4096, 0]),
    "weights: offsets that overlap": edit(HEAD, data_offsets=[0, 32 * 32 * 4]),
    "weights: an unknown dtype": edit(HEAD, dtype="F33"),
    "weights: a dtype of the same size": edit(HEAD, dtype="I32"),
    "weights: a key twice": header(
        lambda h: json.dumps(h).encode().replace(b"{", b'{"__metadata__":{},', 1)
    ),
    "weights: a deep header": header(lambda _: DEEP.encode()),
    "weights: a list as header": header(lambda _: []),
    "weights: 100 000 empty tensors": header(
        lambda h: (
            h
            | {
                f"x{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
                for i in range(100_000)
            }
        )
    ),
    "weights: NaN": tensors(lambda s: s[HEAD].fill_(float("nan"))),
    "weights: one NaN": tensors(
        lambda s: s["wav2vec2.encoder.layers.0.attention.k_proj.bias"].__setitem__(
            0, float("nan")
        )
    ),
    "weights: infinite": tensors(lambda s: s[HEAD][0].fill_(float("-inf"))),
    "weights: whole numbers": tensors(
        lambda s: s.update({HEAD: s[HEAD].to(torch.int64)})
    ),
    "weights: complex": tensors(
        lambda s: s.update({HEAD: s[HEAD].to(torch.complex64)})
    ),
    "weights: 8 bits": tensors(
        lambda s: s.update({HEAD: s[HEAD].to(torch.float8_e4m3fn)})
    ),
    "weights: a head of other sizes": tensors(
        lambda s: s.update({HEAD: torch.zeros(7, 7)})
    ),
    "weights: all shapes wrong": tensors(
        lambda s: s.update({k: torch.zeros(3) for k in s})
    ),
    "weights: none": tensors(lambda s: s.clear()),
    "weights: a layer too many": tensors(
        lambda s: s.update({"wav2vec2.encoder.layers.9999999.a": torch.zeros(1)})
    ),
    "index: outside by ..": sharded({HEAD: "../outside.safetensors"}),
    "index: an absolute path": sharded({HEAD: "/etc/passwd"}),
    "index: no such file": sharded({HEAD: "x.safetensors"}),
    "index: NUL": sharded({HEAD: "w.safetensors\0"}),
    "index: a number": sharded({HEAD: 3}),
    "index: a list": sharded([1, 2]),
    "index: a pickle": both(sharded({HEAD: "w.bin"}), text("w.bin", b"\x80", "wb")),
    "index: itself": sharded({HEAD: "model.safetensors.index.json"}),
    # Not files
    **{
        f"{name}: {what}": instead(name, make)
        for name in ("model.safetensors", *JSONS)
        for what, make in (
            ("a FIFO", os.mkfifo),
            ("a directory", os.mkdir),
            ("/dev/zero", lambda path: path.symlink_to("/dev/zero")),
            ("a link to itself", lambda path: path.symlink_to(path.name)),
            ("a dangling link", lambda path: path.symlink_to("nowhere")),
            ("a socket", socket_at),
        )
    },
    "tokenizer.json: a FIFO": instead("tokenizer.json", os.mkfifo),
    "added_tokens.json: a FIFO": instead("added_tokens.json", os.mkfifo),
    "special_tokens_map.json: a FIFO": instead("special_tokens_map.json", os.mkfifo),
    "names that are not UTF-8": lambda d: Path(
        os.fsdecode(os.fsencode(d) + b"/\xff\xfe.json")
    ).write_text("{}"),
    "names with a line end": text("a\nb.json", "{}"),
    "a link to the directory itself": instead(
        "loop", lambda path: path.symlink_to(path.parent)
    ),
    # JSON of every kind
    **{
        f"{name}: {what}": text(name, written, mode)
        for name in JSONS
        for what, written, mode in (
            ("empty", "", "w"),
            ("deep", DEEP, "w"),
            ("a list", "[]", "w"),
            ("a number", "1", "w"),
            ("null", "null", "w"),
            ("no text", b"\xff\xfe\x00{", "wb"),
            ("NUL bytes", b"\0" * 1000, "wb"),
            ("only an opening", "{", "w"),
            ("an endless number", '{"a": ' + "9" * 100_000 + "}", "w"),
        )
    },
    **{
        f"{name}: remote code": settings(
            name,
            auto_map={
                "AutoConfig": "evil/repo--code.C",
                "AutoModelForCTC": "code.M",
                "AutoTokenizer": ["code.T", None],
                "AutoFeatureExtractor": "code.E",
                "AutoProcessor": "code.P",
            },
        )
        for name in JSONS
    },
    # config.json
    **{
        f"config: {name}={value!r}"[:60]: settings("config.json", **{name: value})
        for name in (
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "vocab_size",
            "intermediate_size",
            "num_conv_pos_embeddings",
            "layer_norm_eps",
            "num_conv_pos_embedding_groups",
            "conv_dim",
            "conv_kernel",
            "conv_stride",
            "num_adapter_layers",
            "pad_token_id",
            "feat_extract_norm",
            "model_type",
            "hidden_act",
            "architectures",
            "adapter_attn_dim",
            "initializer_range",
            "output_hidden_size",
            "num_feat_extract_layers",
            "do_stable_layer_norm",
        )
        for value in (HUGE, -1, 0, "32", None, [], 1e308, 10**30, {"a": 1}, True)
    },
    **{
        f"config: {name}={value!r}"[:60]: settings("config.json", **{name: value})
        for name, value in (
            ("conv_stride", [0, 0, 0]),
            ("conv_stride", [HUGE] * 3),
            ("conv_stride", [-5, 8, 8]),
            ("conv_kernel", [HUGE] * 3),
            ("conv_stride", [5, 8]),
            ("conv_dim", [32] * 100_000),
            ("conv_kernel", [0, 0, 0]),
            ("num_hidden_layers", 10**6),
            ("conv_dim", [HUGE] * 3),
            ("conv_stride", ["5", "8", "8"]),
            ("hidden_act", "__import__('os')"),
            ("model_type", "../../x"),
            ("_name_or_path", "http://127.0.0.1:9/"),
            ("torch_dtype", "evil"),
            ("dtype", "float64"),
            ("dtype", "int8"),
            ("add_adapter", True),
            ("quantization_config", {"quant_method": "bitsandbytes"}),
            ("quantization_config", {"quant_method": "gptq", "bits": 4}),
            ("attn_implementation", "kernels-community/evil"),
            ("_attn_implementation", "evil/kernels"),
            ("_attn_implementation", "flash_attention_2"),
            ("auto_map", "x"),
            ("transformers_version", {}),
            ("id2label", {"x": "y"}),
            ("num_labels", HUGE),
            ("hidden_size", 10**6),
            ("vocab_size", 10**6),
            ("mask_time_length", HUGE),
            ("mask_time_prob", 1e9),
            ("final_dropout", 9),
            ("layerdrop", "x"),
            ("base_model_tp_plan", {"x": "y"}),
            ("use_return_dict", "x"),
            ("sub_configs", {"x": 1}),
            ("problem_type", "x"),
            ("ctc_loss_reduction", 3),
            ("target_lang", "../../x"),
        )
    },
    "bare config: hidden_size 10**6": both(
        removed("model.safetensors"), settings("config.json", hidden_size=10**6)
    ),
    # Vocabularies
    "vocabulary: empty": vocabulary(lambda v: {}),
    "vocabulary: a huge id": vocabulary(lambda v: v | {"A": 10**12}),
    "vocabulary: a negative id": vocabulary(lambda v: v | {"A": -1}),
    "vocabulary: a fraction": vocabulary(lambda v: v | {"A": 1.5}),
    "vocabulary: text ids": vocabulary(lambda v: {k: str(i) for k, i in v.items()}),
    "vocabulary: one id for all": vocabulary(lambda v: dict.fromkeys(v, 5)),
    "vocabulary: nested": vocabulary(lambda v: {"eng": v}),
    "vocabulary: lone surrogates": vocabulary(
        lambda v: {k if i != 7 else "\ud800": i for k, i in v.items()}
    ),
    "vocabulary: an empty token": vocabulary(
        lambda v: {k if i != 7 else "": i for k, i in v.items()}
    ),
    "vocabulary: a long token": vocabulary(
        lambda v: {k if i != 7 else "X" * 10**6: i for k, i in v.items()}
    ),
    "vocabulary: a million tokens": vocabulary(
        lambda v: v | {f"t{i}": i for i in range(100, 10**6)}
    ),
    "vocabulary: a key twice": text("vocab.json", '{"a": 1, "a": 2}'),
    # Tokenizer and feature extractor
    **{
        f"tokenizer: {name}={value!r}"[:60]: settings(
            "tokenizer_config.json", **{name: value}
        )
        for name, value in (
            ("tokenizer_class", "os.system"),
            ("tokenizer_class", "PreTrainedModel"),
            ("tokenizer_class", 3),
            ("tokenizer_class", "WhisperTokenizer"),
            ("tokenizer_class", "../x"),
            ("pad_token", None),
            ("pad_token", 3),
            ("pad_token", {"__type": "AddedToken"}),
            ("unk_token", "x" * 10**6),
            ("word_delimiter_token", ""),
            ("word_delimiter_token", None),
            ("added_tokens_decoder", {"99999999999": {"content": "x"}}),
            ("added_tokens_decoder", []),
            ("added_tokens_decoder", {"a": "b"}),
            ("target_lang", "x"),
            ("replace_word_delimiter_char", 3),
            ("do_lower_case", "x"),
            ("model_max_length", "x"),
            ("chat_template", "{{ cycler.__init__.__globals__.os.system('x') }}"),
            ("extra_special_tokens", 3),
            ("backend", "x"),
            ("vocab_file", "/etc/passwd"),
            ("name_or_path", "evil/repo"),
            ("tokenizer_file", "/etc/passwd"),
        )
    },
    **{
        f"extractor: {name}={value!r}"[:60]: both(
            removed("processor_config.json"),
            settings("preprocessor_config.json", **{name: value}),
        )
        for name, value in (
            ("sampling_rate", HUGE),
            ("sampling_rate", 0),
            ("sampling_rate", "16000"),
            ("feature_size", HUGE),
            ("feature_size", -1),
            ("feature_size", 80),
            ("feature_extractor_type", "SeamlessM4TFeatureExtractor"),
            ("feature_extractor_type", "os.system"),
            ("feature_extractor_type", 3),
            ("padding_value", "x"),
            ("padding_value", float("nan")),
            ("do_normalize", "x"),
            ("return_attention_mask", "x"),
            ("n_fft", HUGE),
            ("processor_class", "evil"),
            ("padding_side", "middle"),
            ("model_input_names", []),
            ("model_input_names", 3),
        )
    },
    **{
        f"extractor: whisper {name}={value!r}"[:60]: both(
            removed("processor_config.json"),
            text(
                "preprocessor_config.json",
                json.dumps(
                    {"feature_extractor_type": "WhisperFeatureExtractor", name: value}
                ),
            ),
        )
        for name, value in (
            ("n_fft", HUGE),
            ("feature_size", HUGE),
            ("chunk_length", HUGE),
            ("n_fft", 10**5),
            ("hop_length", 0),
        )
    },
}


def main(source: Path, seed: int, count: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    connection = thanosql.connect(":memory:")
    connection.execute("CREATE TABLE clips (audio, text)")
    clip = tempfile.NamedTemporaryFile(suffix=".wav")  # noqa: SIM115 - to the end
    waveform = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    soundfile.write(clip.name, waveform.numpy(), 16_000)
    connection.execute("INSERT INTO clips VALUES (?, 'abc')", (clip.name,))
    connection.execute("INSERT INTO clips VALUES (?, 'bcd')", (clip.name,))
    connection.commit()
    connection.execute("IMPORT MODEL m FROM ?", (str(source),))
    predict = "SELECT predicted FROM (PREDICT USING {} AS SELECT * FROM clips)"
    expected = connection.execute(predict.format("m")).fetchall()
    before = content(connection)

    whole = tempfile.TemporaryDirectory()
    connection.execute("EXPORT MODEL m TO ?", (whole.name,))
    source = Path(whole.name)
    cases = dict(CONSTRUCTED)
    generator = random.Random(seed)
    names = [path.name for path in source.iterdir()]
    for number in range(count):
        name = generator.choice(sorted(names))
        what, spoiled = damaged((source / name).read_bytes(), generator)
        cases[f"random {number}: {name}: {what}"] = text(name, spoiled, "wb")

    for name, damage in cases.items():
        with tempfile.TemporaryDirectory() as temporary:
            directory = Path(temporary, "model")
            shutil.copytree(source, directory)
            damage(directory)
            result = {"name": name, "outcome": "stored", "message": ""}
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            try:
                with bounded(60, 2 * GIB):
                    connection.execute("IMPORT MODEL n FROM ?", (str(directory),))
                    result["text"] = connection.execute(predict.format("n")).fetchall()
                    connection.execute("DROP MODEL n")
            except thanosql.Error as error:
                result["outcome"] = type(error).__name__
                result["message"] = str(error).replace(temporary, "TMP")
            except BaseException as error:
                result["outcome"] = f"not PEP 249: {type(error).__name__}"
                result["message"] = str(error)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
            result["grown_mib"] = grown // 1024
            result["unchanged"] = content(connection) == before
            if not result["unchanged"]:
                connection.execute("DROP MODEL IF EXISTS n")
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
    assert connection.execute(predict.format("m")).fetchall() == expected


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
