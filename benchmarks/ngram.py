"""What counting a language model costs, and how good it is beside KenLM's.

    python benchmarks/ngram.py --text TEXT               100,000 words and 1 million
    python benchmarks/ngram.py --text TEXT --full        3 million, too
    python benchmarks/ngram.py --text TEXT --kenlm BIN   beside KenLM's programs there

TEXT is a file with a text in each line. Perplexity is that of a tenth of its lines, by
models of the others. For seconds and memory, lines are made of the beginning of one
and the end of another, drawn at random, so that new n-grams keep coming.

Each BUILD runs in a process of its own, on one thread, over rows of a database file.
Memory is what the process holds beyond files that it maps, at its peak while the
statement runs, less what it held before.
"""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common

import thanosql
from thanosql.speech.ngram.model import open_model
from thanosql.speech.words import words_of

SIZES = (100_000, 1_000_000, 3_000_000)
SETTINGS: list[dict[str, Any]] = [
    {"order": order, "prune": prune}
    for order, prune in ((2, "0"), (3, "0"), (3, "0 0 1"), (5, "0"))
]


def main() -> None:
    """Measure, and print one JSON object."""
    if "--worker" in sys.argv:
        worker(sys.argv[2])
        return
    parser = common.parser(__doc__)
    parser.add_argument("--text", type=Path, required=True, help="a text a line")
    parser.add_argument("--kenlm", type=Path, help="the folder of lmplz and query")
    options = parser.parse_args()
    lines = options.text.read_text(encoding="utf-8").splitlines()
    texts = [" ".join(words) for line in lines if (words := words_of(line))]
    with tempfile.TemporaryDirectory() as folder:
        sizes = SIZES if options.full else SIZES[:-1]
        counted = {size: cost(texts, size, Path(folder)) for size in sizes}
        learned = [
            quality(texts, each, options.kenlm, Path(folder)) for each in SETTINGS
        ]
    few, many = sizes[-2:]
    ratios = [
        common.ratio(
            f"peak memory, {many:,} words to {few:,}",
            [counted[many]["peak_mb"]],
            [counted[few]["peak_mb"]],
            goal=1.3,
            higher_is_better=False,
        )
    ]
    if options.kenlm is not None:
        ratios += [
            common.ratio(
                f"perplexity to KenLM's, order {each['order']}, prune {each['prune']}",
                [each["perplexity"]],
                [each["perplexity_of_kenlm"]],
                goal=1.02,
                higher_is_better=False,
            )
            for each in learned
        ]
    common.report(
        options,
        packages=("apsw", "numpy", "regex"),
        settings={
            "order": 3,
            "threads": 1,
            "words_of_text": len(" ".join(texts).split()),
        },
        measurements={
            **{f"{size} words": each for size, each in counted.items()},
            **{f"order {e['order']}, prune {e['prune']}": e for e in learned},
        },
        ratios=ratios,
        checks={
            "a million words in under a minute": counted[SIZES[1]]["seconds"] < 60,
            **(
                {}
                if options.kenlm is None
                else {
                    "as many n-grams as KenLM": all(
                        each["ngrams"] == each["ngrams_of_kenlm"] for each in learned
                    )
                }
            ),
        },
    )


def cost(texts: list[str], size: int, folder: Path) -> dict[str, Any]:
    """Return seconds and memory of a BUILD of so many words."""
    path = folder / f"{size}.db"
    draw = random.Random(0)
    words = [text.split() for text in texts]
    with thanosql.connect(path) as connection:
        connection.execute("CREATE TABLE scripts (text TEXT)")
        while size > 0:
            one, other = draw.choice(words), draw.choice(words)
            line = one[: (len(one) + 1) // 2] + other[len(other) // 2 :]
            size -= len(line)
            connection.execute("INSERT INTO scripts VALUES (?)", (" ".join(line),))
    done = subprocess.run(
        [sys.executable, __file__, "--worker", path],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def worker(path: str) -> None:
    """Build once, and print what it took."""
    connection = thanosql.connect(path)
    small = "BUILD MODEL warm USING NGram AS SELECT text FROM scripts LIMIT 100"
    connection.execute(small)  # imports what is to be imported
    before, held, stop = _held(), [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.005):
            held.append(_held())

    watching = threading.Thread(target=watch)
    watching.start()
    began, processor = time.perf_counter(), time.process_time()
    build = "BUILD MODEL lm USING NGram AS SELECT text FROM scripts"
    row = connection.execute(build).fetchone()
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    stop.set()
    watching.join()
    size = connection.execute(
        "SELECT bytes FROM (LIST MODELS) WHERE name = 'lm'"
    ).fetchone()[0]
    print(
        json.dumps(
            {
                "words": row[4],
                "ngrams": row[1],
                "seconds": seconds,
                "processor_seconds": processor,
                "peak_mb": (max(held) - before) / 1e6,
                "model_mb": size / 1e6,
            }
        )
    )


def _held() -> int:
    """Return the bytes of memory that no file is behind."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


def quality(
    texts: list[str], settings: dict[str, Any], kenlm: Path | None, folder: Path
) -> dict[str, Any]:
    """Return the perplexity of a tenth of the texts, by our model and by KenLM's."""
    held_out = texts[::10]
    learned = [text for i, text in enumerate(texts) if i % 10]
    with thanosql.connect(":memory:") as connection:
        connection.execute("CREATE TABLE scripts (text TEXT)")
        connection.executemany(
            "INSERT INTO scripts VALUES (?)", [(t,) for t in learned]
        )
        connection.commit()
        options = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        row = connection.execute(
            f"BUILD MODEL lm USING NGram OPTIONS ({options}, validation=0) "
            "AS SELECT text FROM scripts"
        ).fetchone()
        files = connection.execute("SELECT path, data FROM thanosql_files").fetchall()
    stored: dict[str, bytes] = {}
    for name, data in files:
        stored[name] = stored.get(name, b"") + data
    model = open_model(stored)
    began = time.perf_counter()
    total = sum(model.log_probability(text.split()) for text in held_out)
    seconds = time.perf_counter() - began
    tokens = sum(len(text.split()) + 1 for text in held_out)
    found = settings | {
        "ngrams": row[1],
        "perplexity": math.exp(-total / tokens),
        "queries_a_second": tokens / seconds,
    }
    if kenlm is not None:
        found |= _kenlm(learned, held_out, settings, kenlm, folder)
    return found


def _kenlm(
    learned: list[str],
    held_out: list[str],
    settings: dict[str, Any],
    programs: Path,
    folder: Path,
) -> dict[str, Any]:
    arpa = folder / "kenlm.arpa"
    made = [
        programs / "lmplz",
        "-o",
        str(settings["order"]),
        "--arpa",
        arpa,
        "-T",
        folder,
    ]
    began = time.perf_counter()
    subprocess.run(
        [*made, "-S", "1G", "--prune", *settings["prune"].split()],
        input="\n".join([*learned, ""]),
        text=True,
        check=True,
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.perf_counter() - began
    asked = subprocess.run(
        [programs / "query", "-v", "summary", arpa],
        input="\n".join([*held_out, ""]),
        text=True,
        check=True,
        capture_output=True,
    )
    with arpa.open(encoding="utf-8") as file:
        head = "".join(next(file) for _ in range(settings["order"] + 1))
    perplexity = re.search(r"including OOVs:\s*(\S+)", asked.stdout)
    assert perplexity is not None
    return {
        "ngrams_of_kenlm": sum(map(int, re.findall(r"ngram \d=(\d+)", head))),
        "perplexity_of_kenlm": float(perplexity[1]),
        "seconds_of_kenlm": seconds,
    }


if __name__ == "__main__":
    main()
