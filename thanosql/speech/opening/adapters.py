"""The files of adapters: a directory as PEFT writes it in, a model out, and back.

    adapter_config.json        rank, scale and layers, as PEFT has them
    adapter_model.safetensors  two matrices for each layer, under PEFT's names
    base.json                  ours, which PEFT ignores: the name and the digest of the
                               base; rank; language, task and window

PEFT is the package by which Hugging Face's models are adapted. An adapter stored in a
database is these files.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from torch import nn

from thanosql.errors import DataError, NotSupportedError
from thanosql.speech.decoding.decoding import Request
from thanosql.speech.opening import hub, weights
from thanosql.speech.opening.assembly import damaged
from thanosql.speech.opening.directory import check, parse_json, read_json
from thanosql.speech.recognizers import adapter, families
from thanosql.speech.recognizers.adapter import Told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor
    from transformers import PreTrainedModel

    from thanosql.speech.recognizers.recognizer import Recognizer

CONFIG, WEIGHTS, BASE = "adapter_config.json", "adapter_model.safetensors", "base.json"
_STORED = "the stored adapter"
_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# What another value of a setting in adapter_config.json would take: more than LoRA.
_PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    **dict.fromkeys(
        ("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out"),
        (False, None),
    ),
}


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """What the files of an adapter say."""

    rank: int
    alpha: float
    matrices: Mapping[str, tuple[Tensor, Tensor]]
    "A (rank, inputs) and B (outputs, rank) of each layer, by its name."
    told: Told
    base: str | None = None
    "The base's path or name on the hub, as adapter_config.json has it."
    base_sha256: str | None = None
    "The digest of the base, where base.json is there."

    @property
    def parameters(self) -> int:
        """The number of values in the matrices."""
        return sum(each.numel() for pair in self.matrices.values() for each in pair)


def in_directory(origin: str) -> Path | None:
    """Return the directory if it holds an adapter; None if it is none, or a model's."""
    path = Path(origin)
    try:
        path = path.expanduser()
        is_adapter = (path / CONFIG).is_file() and not (path / "config.json").exists()
    except (OSError, RuntimeError, ValueError):  # which opening it tells in words
        return None
    return path if is_adapter else None


def read_directory(directory: Path) -> AdapterFiles:
    """Return the adapter in a directory; raises DataError or NotSupportedError."""
    where = str(directory)
    with damaged(where):
        names = {path.name for path in directory.iterdir()}
        if WEIGHTS not in names:
            pickle = hub.pickled_weights(names)
            if pickle is not None:
                message = (
                    f"{where} holds its weights only as {pickle}, which can run code "
                    "when opened, and is never read; where you trust it, PEFT's "
                    f"save_pretrained(DIR, safe_serialization=True) writes {WEIGHTS}"
                )
                raise NotSupportedError(message)
            message = f"{where} has no {WEIGHTS}, which an adapter's weights are in"
            raise DataError(message)
        check(directory, where)
    config = read_json(directory / CONFIG, f"{CONFIG!r} in {where}")
    base = directory / BASE
    told = read_json(base, f"{BASE!r} in {where}") if base.is_file() else {}
    with damaged(f"{WEIGHTS!r} in {where}"):
        state = load_file(directory / WEIGHTS)
    return _read(config, told, state, where)


def read_files(files: Mapping[str, weights.Buffer]) -> AdapterFiles:
    """Return the adapter in the files of a stored one."""
    for name in (CONFIG, WEIGHTS, BASE):
        if name not in files:
            message = f"{_STORED} is damaged: it has no {name}"
            raise DataError(message)
    found = []
    for name in (CONFIG, BASE):
        try:
            found.append(parse_json(bytes(files[name])))
        except ValueError as error:
            message = f"{name!r} of {_STORED} is damaged: {error}"
            raise DataError(message) from error
    state = weights.tensors({WEIGHTS: files[WEIGHTS]})
    return _read(found[0], found[1], state, _STORED)


def _read(
    config: Mapping[str, Any],
    told: Mapping[str, Any],
    state: Mapping[str, Tensor],
    where: str,
) -> AdapterFiles:
    for name, plain in _PLAIN.items():
        if config.get(name) not in plain:
            message = (
                f"{where} is an adapter with {name} = {config.get(name)!r:.60}; only "
                "plain LoRA is run here: merge it into its base with PEFT "
                "(merge_and_unload), save that, and import it as a model"
            )
            raise NotSupportedError(message)
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if type(rank) is not int or not isinstance(alpha, int | float) or rank < 1:
        message = (
            f"{CONFIG!r} in {where} has r = {rank!r:.20}, lora_alpha = {alpha!r:.20}"
        )
        raise DataError(message)
    if config.get("use_rslora"):  # which divides by the root of the rank
        alpha *= math.sqrt(rank)
    weights.check(state, where)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.widened(state).items():
        found = _MATRIX.fullmatch(key)
        if found is None:
            message = f"{where}: {key!r:.100} is no matrix of LoRA"
            raise NotSupportedError(message)
        halves.setdefault(found[1], {})[found[2]] = tensor
    matrices = {}
    for name, pair in halves.items():
        shapes = {half: tuple(tensor.shape) for half, tensor in pair.items()}
        a, b = shapes.get("A", ()), shapes.get("B", ())
        if not (len(a) == len(b) == 2 and a[0] == b[1] == rank):
            message = (
                f"{where}: the matrices of {name} are of shapes {shapes}, r = {rank}"
            )
            raise DataError(message)
        matrices[name] = pair["A"], pair["B"]
    if not matrices:
        message = f"{where} has no weights"
        raise DataError(message)
    texts = {name: told.get(name) for name in ("language", "task", "window", "sha256")}
    base = config.get("base_model_name_or_path")
    for name, value in {**texts, "base_model_name_or_path": base}.items():
        if not isinstance(value, str | None):
            message = f"{where} has {name} = {value!r:.60}, not a text"
            raise DataError(message)
    sha256 = texts.pop("sha256")
    return AdapterFiles(rank, float(alpha), matrices, Told(**texts), base, sha256)


def over(base: Recognizer, files: AdapterFiles, where: str = _STORED) -> Recognizer:
    """Return the recognizer of a base with an adapter; the base stays as it is.

    It has weights of its own for the adapted layers; all others are the base's, so that
    many adapters of a base take little more memory than the base.
    """
    model = adapter.sharing(base.model)
    _check_layers(model, files, where)
    adapter.fold_in(model, files.matrices, files.alpha / files.rank)
    found = families.recognizer(
        model, base.tokenizer, base.feature_extractor, base.fresh
    )
    _tell(found, files.told)
    return found


def train_further(base: Recognizer, files: AdapterFiles) -> None:
    """Give a base, opened for this, the adapter, to train it."""
    _check_layers(base.model, files, _STORED)
    base.adapter = adapter.add(base.model, files.matrices, files.rank, files.alpha)
    for name, ours in base.adapter.matrices().items():
        for here, stored in zip(ours, files.matrices[name], strict=True):
            here.copy_(stored)
    _tell(base, files.told)


def save(
    made: Recognizer | AdapterFiles, directory: Path, base: str, sha256: str
) -> None:
    """Write the files of an adapter: a recognizer's, or one that was read.

    base, sha256: the name and the digest of its base.
    """
    if isinstance(made, AdapterFiles):
        rank, alpha, told, matrices = made.rank, made.alpha, made.told, made.matrices
    else:
        trained = made.adapter
        assert trained is not None
        rank, alpha, told = trained.rank, trained.alpha, trained.told
        matrices = trained.matrices()
    state = {
        f"base_model.model.{name}.lora_{half}.weight": matrix.cpu().contiguous()
        for name, pair in matrices.items()
        for half, matrix in zip("AB", pair, strict=True)
    }
    save_file(state, directory / WEIGHTS)
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(matrices),
        "inference_mode": True,
    }
    ours = {"base": base, "sha256": sha256, "rank": rank, **asdict(told)}
    for name, content in ((CONFIG, config), (BASE, ours)):
        text = json.dumps(content, indent=1, ensure_ascii=False)
        (directory / name).write_text(text + "\n", encoding="utf-8")


def _tell(recognizer: Recognizer, told: Told) -> None:
    window: Any = told.window
    if told.language is not None or told.task is not None:
        recognizer.adopt(Request(language=told.language, task=told.task))
    recognizer.adopt_window(window)


def _check_layers(model: PreTrainedModel, files: AdapterFiles, where: str) -> None:
    """Raise DataError if an adapter's layers are not the model's."""
    layers = dict(model.named_modules())
    untyped: Any = model
    tied = {name.removesuffix(".weight") for name in untyped.all_tied_weights_keys}
    for name, (a, b) in files.matrices.items():
        layer = layers.get(name)
        kind = type(model).__name__
        if not isinstance(layer, nn.Linear) or name in tied:
            message = (
                f"{where} adapts {name!r:.100}, which is no linear layer of {kind}, or "
                "one whose weights are another's too; its base is another model"
            )
            raise DataError(message)
        shape = (b.shape[0], a.shape[1])
        if shape != tuple(layer.weight.shape):
            message = (
                f"{where} adapts {name} of shape {shape}; in the base it is of shape "
                f"{tuple(layer.weight.shape)}: its base is another model"
            )
            raise DataError(message)
