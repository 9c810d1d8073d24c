"""Choose device and precision: the values of two options in, a `Compute` out."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from thanosql.errors import OperationalError, OptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_HALF = ("bf16", "fp16")


@dataclass(frozen=True, slots=True)
class Compute:
    """A device, and the precision of the matrix products on it."""

    device: torch.device
    precision: str
    """fp32, bf16, fp16; for inference on a CPU also int8 (`quantization.py`).

    Weights, normalisations and the loss are fp32 with each.
    """

    def stage(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a CPU tensor in memory that a GPU can copy from while it computes."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def move(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a staged tensor on the device, without waiting for the copy."""
        return tensor.to(self.device, non_blocking=True)

    def autocast(self) -> torch.autocast:
        """Return the context the model's forward pass runs in."""
        return torch.autocast(
            self.device.type,
            _DTYPES[self.precision] if self.precision in _HALF else None,
            enabled=self.precision in _HALF,
        )

    def grad_scaler(self) -> torch.amp.GradScaler:
        """Return the scaler that keeps fp16 gradients from vanishing.

        It does nothing at any other precision.
        """
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")

    @contextmanager
    def tf32(self) -> Iterator[None]:
        """Allow tf32 on CUDA for products that autocast leaves in fp32; undo it after.

        Does nothing if the precision is fp32, which promises exact products.
        """
        matmul = torch.backends.cuda.matmul
        before = matmul.fp32_precision
        if self.device.type == "cuda" and self.precision != "fp32":
            matmul.fp32_precision = "tf32"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@contextmanager
def within_memory(recordings: int) -> Iterator[None]:
    """Raise OperationalError, with the way out, if a batch does not fit into memory.

    recordings: the number of recordings in the batch.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError; these words of it are the same on
        # all systems.
        out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
        if not out_of_memory and "DefaultCPUAllocator: " not in str(error):
            raise
        message = (
            f"a batch of {recordings} takes more memory than there is; set a smaller "
            "batch_size, or a smaller chunk_seconds for long recordings, or in BUILD "
            "gradient_checkpointing=True"
        )
        raise OperationalError(message) from error


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has computed all that is queued; a CPU has no queue."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sent(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor on the device; it is pinned, so nothing waits for a GPU."""
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def resolve(
    device: str = "auto", precision: str = "auto", *, inference: bool = False
) -> Compute:
    """Return the device and precision that the option values mean on this machine.

    device: "auto" (CUDA if there is any, else the CPU), "cpu", "cuda" or "cuda:1".
    precision: "auto" (on CUDA bf16 where the device has it, else fp16; on a CPU
    fp32), "fp32", "bf16", "fp16", or, for inference on a CPU, "int8".

    Raises OptionError if the device or precision is not available here.
    """
    chosen = _device(device)
    on_cuda = chosen.type == "cuda"
    bf16 = on_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    if precision == "auto":
        precision = ("bf16" if bf16 else "fp16") if on_cuda else "fp32"
    if precision == "int8" and inference:
        if on_cuda:
            message = (
                "precision='int8' is for a CPU; use device='cpu', or 'fp16' or 'auto'"
            )
            raise OptionError(message)
        return Compute(chosen, precision)
    if precision not in _DTYPES:
        message = f"precision is 'auto', 'fp32', 'bf16' or 'fp16', not {precision!r}"
        raise OptionError(message)
    if precision == "bf16" and on_cuda and not bf16:
        message = (
            f"precision='bf16' needs a GPU of a newer kind than "
            f"{torch.cuda.get_device_name(chosen)}; use 'fp16', or 'auto'"
        )
        raise OptionError(message)
    return Compute(chosen, precision)


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (index and not index.isdigit()) or name.endswith(":"):
        message = f"device is 'auto', 'cpu', 'cuda' or 'cuda:0', not {name!r}"
        raise OptionError(message)
    if not torch.cuda.is_available():
        message = (
            f"device={name!r} asks for a CUDA GPU, and torch sees none here; "
            "use device='cpu' or 'auto', or install a CUDA build of torch"
        )
        raise OptionError(message)
    if index and int(index) >= torch.cuda.device_count():
        message = (
            f"device={name!r} does not exist; there are "
            f"{torch.cuda.device_count()} GPUs, the first is 'cuda:0'"
        )
        raise OptionError(message)
    # With its index, so that it equals the device of the tensors on it.
    return torch.device("cuda", int(index) if index else torch.cuda.current_device())
