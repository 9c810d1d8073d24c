from __future__ import annotations

import contextlib

import pytest
import torch

from thanosql.errors import OperationalError, OptionError
from thanosql.speech.recognizers import precision


def test_a_cpu_computes_in_fp32_by_default():
    compute = precision.resolve("cpu", "auto")
    assert compute == precision.Compute(torch.device("cpu"), "fp32")
    assert not compute.grad_scaler().is_enabled()
    with compute.autocast():
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("name", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_matrix_products_are_rounded_as_asked(name, dtype):
    compute = precision.resolve("cpu", name)
    matrix = torch.ones(2, 2)
    with compute.autocast():
        assert (matrix @ matrix).dtype == dtype
    assert (matrix @ matrix).dtype == torch.float32


def test_only_fp16_scales_its_gradients():
    enabled = {
        name: precision.resolve("cpu", name).grad_scaler().is_enabled()
        for name in ("fp32", "bf16", "fp16")
    }
    assert enabled == {"fp32": False, "bf16": False, "fp16": True}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_gpu_that_is_not_there_is_named_with_the_way_out():
    assert precision.resolve("auto").device == torch.device("cpu")
    with pytest.raises(OptionError, match=r"device='cuda' .* use device='cpu'"):
        precision.resolve("cuda")
    with pytest.raises(OptionError, match="device='cuda:1'"):
        precision.resolve("cuda:1")


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "cpu:0", "mps", ""])
def test_an_unknown_device_is_an_error_that_lists_the_known(device):
    with pytest.raises(OptionError, match="'auto', 'cpu', 'cuda' or 'cuda:0'"):
        precision.resolve(device)


def test_an_unknown_precision_is_an_error_that_lists_the_known():
    with pytest.raises(OptionError, match="'auto', 'fp32', 'bf16' or 'fp16'"):
        precision.resolve("cpu", "fp64")


def test_tf32_is_put_back_after_an_error():
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    gpu = precision.Compute(torch.device("cuda", 0), "bf16")
    with contextlib.suppress(KeyError), gpu.tf32():
        assert matmul.fp32_precision == "tf32"
        raise KeyError
    assert matmul.fp32_precision == before
    exact = precision.Compute(torch.device("cuda", 0), "fp32")
    with exact.tf32():
        assert matmul.fp32_precision == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_chosen_and_computes_in_half_precision_by_default():
    compute = precision.resolve()
    assert compute.device == torch.device("cuda", torch.cuda.current_device())
    assert compute.precision in ("bf16", "fp16")
    with pytest.raises(OptionError, match="does not exist"):
        precision.resolve("cuda:99")


@pytest.mark.parametrize("allocate", [torch.empty, bytearray])
def test_a_batch_beyond_memory_is_answered_with_the_way_out(allocate):
    with (
        pytest.raises(OperationalError, match=r"a batch of 16 .* smaller batch_size"),
        precision.within_memory(16),
    ):
        allocate(10**15)


def test_memory_is_told_to_be_short_on_windows_too():
    reason = "data. DefaultCPUAllocator: not enough memory: you tried to allocate 9"
    with (
        pytest.raises(OperationalError, match="smaller batch_size"),
        precision.within_memory(16),
    ):
        raise RuntimeError(reason)


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shape"), precision.within_memory(16):
        torch.ones(2) @ torch.ones(3, 3)
