"""Exported models in, the directory that ships out: weights in 16 bits, checked.

    python benchmarks/recipes/pack.py one other speech.db --rows "SELECT audio FROM ..."

`one` and `other` are what EXPORT MODEL wrote of trainings from the same weights: their
average is what ships (Wortsman et al. 2022, "Model soups"). Matrices and kernels are
rounded to float16; what is a vector (norms, biases) stays float32, since it is small
and its range is not known. config.json says float32 still, so that AutoModelForCTC
computes in it, as `open_base` does. Ends with status 1 if it is too large, or if a row
is transcribed otherwise than by the average in 32 bits.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file

import thanosql

if TYPE_CHECKING:
    from collections.abc import Sequence

MODEL = Path(__file__).parents[2] / "thanosql/catalog/tiny_en"
MOST_BYTES = 12_000_000
_WEIGHTS = "model.safetensors"
_KEPT = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
)


def main() -> None:
    """Write `model/` beside this file, and say how it differs from the average."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("exported", type=Path, nargs="+")
    parser.add_argument("database", type=Path, help="with rows to transcribe")
    parser.add_argument("--rows", required=True, help="a query with a column audio")
    chosen = parser.parse_args()
    with TemporaryDirectory() as folder:
        average(chosen.exported, Path(folder))
        size = pack(Path(folder), MODEL)
        texts = transcripts(chosen.database, chosen.rows, Path(folder), MODEL)
    other = [(before, after) for before, after in texts if before != after]
    for before, after in other[:5]:
        print(f"  {before}\n  {after}\n")
    print(f"{size:,} bytes; {len(other)} of {len(texts)} transcripts are others")
    if size > MOST_BYTES or other:
        sys.exit(1)


def average(exported: Sequence[Path], target: Path) -> None:
    """Write the directory whose weights are the mean of those of `exported`.

    What else it holds, and numbers that are counts, are the first one's.
    """
    for name in _KEPT:
        shutil.copyfile(exported[0] / name, target / name)
    first, *others = (load_file(directory / _WEIGHTS) for directory in exported)
    state = {
        name: torch.stack([tensor, *(other[name] for other in others)]).mean(0)
        if tensor.is_floating_point()
        else tensor
        for name, tensor in first.items()
    }
    save_file(state, target / _WEIGHTS, metadata={"format": "pt"})


def pack(exported: Path, target: Path) -> int:
    """Write the directory; return the bytes of its files."""
    target.mkdir(parents=True, exist_ok=True)
    for name in _KEPT:
        shutil.copyfile(exported / name, target / name)
    state = {
        name: tensor.half() if tensor.dim() > 1 else tensor
        for name, tensor in load_file(exported / _WEIGHTS).items()
    }
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            message = f"{name} is beyond what 16 bits hold"
            raise ValueError(message)
    save_file(state, target / _WEIGHTS, metadata={"format": "pt"})
    (target / _WEIGHTS).chmod(0o644)  # safetensors lets only their writer read files
    return sum(path.stat().st_size for path in target.iterdir())


def transcripts(
    database: Path, query: str, exported: Path, packed: Path
) -> list[tuple[str, str]]:
    """Return what both directories make of the recordings of a query."""
    found = []
    with closing(thanosql.connect(":memory:")) as connection:
        connection.execute("ATTACH ? AS given", (str(database),))
        for name, directory in (("exported", exported), ("packed", packed)):
            connection.execute(f"IMPORT MODEL {name} FROM ?", (str(directory),))
            predict = f"PREDICT USING {name} OPTIONS (precision='fp32') AS {query}"
            rows = connection.execute(f"SELECT predicted FROM ({predict})")
            found.append([str(text) for (text,) in rows])
    return list(zip(*found, strict=True))


if __name__ == "__main__":
    main()
