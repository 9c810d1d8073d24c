"""A model's weights: safetensors bytes in, tensors out; and fresh weights drawn.

A matrix may be stored in int8. `NAME_scale` is then a column of one float for each row
of `NAME`, by which the row is multiplied (as compressed-tensors names it, too).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from thanosql.errors import DataError
from thanosql.speech.opening.directory import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

# Names of types, as the specification of safetensors lists them.
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# transformers' names for the convolutions between a model's input and its encoder.
_FRONT_ENDS = {"feature_extractor", "subsampling", "subsampler"}

_MOST_TENSORS = 20_000  # a model of 100 layers has 4 000

Buffer = bytes | bytearray | memoryview


def tensors(files: Mapping[str, Buffer]) -> dict[str, Tensor]:
    """Return every tensor of safetensors files in memory: name -> tensor.

    files: file name -> content. Tensors share the memory of a file that is writable, so
    the caller must not use it afterwards. Only headers are read, not values.

    Raises DataError if a file is incomplete or damaged.
    """
    found: dict[str, Tensor] = {}
    for name, content in files.items():
        try:
            found.update(_tensors(content))
        except (ValueError, KeyError, TypeError, RuntimeError) as error:
            message = f"the weights in {name} are damaged: {error}"
            raise DataError(message) from error
    return found


def check(state: Mapping[str, Tensor], where: str) -> None:
    """Raise DataError for tensors that cannot be weights: integers, NaN or infinity.

    int8 may be weights, with a scale beside them. where: the model's name for errors.
    """
    if len(state) > _MOST_TENSORS:
        message = f"{where} has {len(state):,} tensors; no model has {_MOST_TENSORS:,}"
        raise DataError(message)
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dtype in _DTYPES.values():
            # With a NaN among the values, both ends are NaN. This takes a seventh of
            # the time of a sum in double precision.
            if tensor.numel() == 0 or all(
                math.isfinite(each) for each in torch.aminmax(tensor)
            ):
                continue
            message = f"{where}: the weights {name} hold NaN or infinite values"
        elif tensor.dim() == 0 and not tensor.is_floating_point():  # such as a counter
            continue
        elif (
            tensor.dtype == torch.int8
            and (scale := state.get(f"{name}_scale")) is not None
        ):
            if _is_scale(scale, tensor):
                continue
            message = (
                f"{where}: the weights {name} are int8, and {name}_scale is no column "
                "of finite floats, one for each row"
            )
        else:
            kind = str(tensor.dtype).removeprefix("torch.")
            message = (
                f"{where}: the weights {name} are {kind}, not floats of 16 bits up"
            )
        raise DataError(message)


def _is_scale(scale: Tensor, matrix: Tensor) -> bool:
    """Return whether `scale` can scale `matrix`, without infinity."""
    one_a_row = len(matrix), *[1] * (matrix.dim() - 1)
    largest = -torch.iinfo(torch.int8).min
    return (
        scale.is_floating_point()
        and scale.shape == one_a_row
        and bool(torch.isfinite(largest * scale.float()).all())
    )


def _tensors(content: Buffer) -> dict[str, Tensor]:
    """Read one safetensors file: 8 bytes of length, a JSON header, the data."""
    if memoryview(content).readonly:
        content = bytearray(content)  # torch needs writable memory
    start = 8 + int.from_bytes(content[:8], "little")
    if not 8 <= start <= len(content):
        message = f"its header ends at byte {start} of {len(content)}"
        raise ValueError(message)
    header = parse_json(bytes(content[8:start]))
    header.pop("__metadata__", None)
    found = {}
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if entry["dtype"] not in _DTYPES:
            message = f"{name} is of a type {entry['dtype']!r} that no model has"
            raise ValueError(message)
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        first, last = entry["data_offsets"]
        count = math.prod(shape)
        # The specification demands that tensors lie one after the other without gaps.
        is_next = first == end and start + last <= len(content)
        if last - first != count * dtype.itemsize or count < 0 or not is_next:
            message = f"{name} is to lie at bytes {first} to {last} of {len(content)}"
            raise ValueError(message)
        end = last
        tensor = (
            torch.frombuffer(content, dtype=dtype, count=count, offset=start + first)
            if count
            else torch.empty(0, dtype=dtype)
        ).reshape(shape)
        found[name] = tensor
    return found


def widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors, checked by `check`, each float converted to float32.

    Those in int8 are multiplied by their scales, which are left out.
    """
    found = {n: t.float() if t.is_floating_point() else t for n, t in state.items()}
    for name, tensor in state.items():
        if tensor.dtype == torch.int8 and tensor.dim():
            found[name] = tensor.float().mul_(found.pop(f"{name}_scale"))
    return found


def draw_by_fan_in(model: nn.Module, fresh: frozenset[str]) -> None:
    """Draw the fresh linear and convolution layers anew, scaled by number of inputs.

    transformers draws all layers with one small deviation, meant for wide pretrained
    models: in a small model the signal dies out, and all utterances look alike. The
    convolutions of the front end are drawn by He et al. 2015, since each of their
    rectifiers halves the signal. All other layers are uniform within plus or minus one
    over the square root of their number of inputs. An embedding that an LSTM takes has
    a deviation of 1, as one of its inputs is 1 and all others 0.
    """
    for name, module in model.named_modules():
        untyped: Any = module
        if (
            isinstance(getattr(module, "lstm", None), nn.LSTM)
            and f"{name}.embedding.weight" in fresh
        ):
            untyped.embedding.reset_parameters()
        if not isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        names = [f"{name}.{own}" for own, _ in module.named_parameters()]
        if not names or not fresh.issuperset(names):
            continue
        if parametrize.is_parametrized(module, "weight"):
            # Weight norm: the weight is computed; assigning it sets its two parameters.
            weight = torch.empty_like(module.weight, requires_grad=False)
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            module.weight = weight
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        else:
            module.reset_parameters()
            if not isinstance(module, nn.Linear) and _FRONT_ENDS & set(name.split(".")):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
