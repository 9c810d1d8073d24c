"""How fast, and how exactly, PREDICT hears with Whisper on a CPU, beside its peers.

    python benchmarks/whisper_transcription.py                24 clips, five minutes
    python benchmarks/whisper_transcription.py --full         all test clips

WhisperTinyEn reads test clips, from the encoded file to the text: by PREDICT through a
cursor, by transformers' pipeline, and by faster-whisper (CTranslate2), greedy all. The
peers get the same weights: EXPORT MODEL writes them for transformers, and CTranslate2
converts that directory. Each contestant has a process of its own, for its peak memory,
and they run in turn. Where faster-whisper is not installed it is left out.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import common

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PACKAGES = ("torch", "transformers", "faster-whisper", "ctranslate2", "soundfile")
SMALL_SET = 24  # clips
BATCH = 16  # the default of PREDICT
WARM_UP = 2  # clips
RATE = 16_000
NORMALIZE = "basic"  # before texts are compared with the references
PIPELINE = "pipeline, batch 1", f"pipeline, batch {BATCH}"
AS_IT_COMES = "pipeline as it comes"  # five beams, one clip at a time
FASTER = {
    precision: (
        f"faster-whisper, {precision}",
        f"faster-whisper, {precision}, batch {BATCH}",
    )
    for precision in ("fp32", "int8")
}

Texts = list[str]


def pipeline(
    models: Path,
    batch_size: int,
    device: str = "cpu",
    dtype: str = "float32",
    **generate: int,
) -> Callable[[list[Path]], Texts]:
    import soundfile
    import transformers

    transformers.logging.set_verbosity_error()
    recognize = transformers.pipeline(
        "automatic-speech-recognition",
        model=str(models / "hub"),
        device=device,
        dtype=dtype,
    )

    def recordings(clips: list[Path]) -> Any:
        for clip in clips:
            samples, rate = soundfile.read(clip, dtype="float32")
            yield {"raw": samples, "sampling_rate": rate}

    def transcribe(clips: list[Path]) -> Texts:
        results = recognize(
            recordings(clips), batch_size=batch_size, generate_kwargs=generate
        )
        return [result["text"].strip() for result in results]

    return transcribe


def faster(
    models: Path, compute: str, batch_size: int
) -> Callable[[list[Path]], Texts]:
    import faster_whisper
    import numpy as np
    import soundfile
    import torch

    model = faster_whisper.WhisperModel(
        str(models / "ctranslate2"),
        device="cpu",
        compute_type=compute,
        cpu_threads=torch.get_num_threads(),
    )
    batched = faster_whisper.BatchedInferencePipeline(model)
    settings: dict[str, Any] = {
        "language": "en",
        "beam_size": 1,
        "temperature": 0.0,
        "without_timestamps": True,
        "condition_on_previous_text": False,
        "vad_filter": False,
    }

    def alone(clips: list[Path]) -> Texts:
        texts = []
        for clip in clips:
            samples, _ = soundfile.read(clip, dtype="float32")
            segments, _ = model.transcribe(samples, **settings)
            texts.append("".join(segment.text for segment in segments).strip())
        return texts

    def together(clips: list[Path]) -> Texts:
        # It takes batches of the parts of one recording only, so they are joined.
        texts: Texts = []
        for begin in range(0, len(clips), batch_size):
            parts = [
                soundfile.read(clip, dtype="float32")[0]
                for clip in clips[begin : begin + batch_size]
            ]
            ends = np.cumsum([len(part) for part in parts])
            # Half a sample more, as it makes whole numbers of samples by cutting off.
            places = [
                {"start": (end - len(part) + 0.5) / RATE, "end": (end + 0.5) / RATE}
                for part, end in zip(parts, ends.tolist(), strict=True)
            ]
            segments, _ = batched.transcribe(
                np.concatenate(parts),
                clip_timestamps=places,
                batch_size=batch_size,
                **settings,
            )
            found = [""] * len(parts)
            for segment in segments:
                # By the place that it begins in; told in whole milliseconds.
                start = (segment.start + 1e-3) * RATE
                row = int(np.searchsorted(ends, start, side="right"))
                found[row] += segment.text
            texts += [text.strip() for text in found]
        return texts

    return alone if batch_size == 1 else together


def imports(models: Path) -> Callable[[list[Path]], Texts]:
    import transformers

    import thanosql.speech.transcription  # noqa: F401

    # What opening a model imports of transformers, on either side.
    assert transformers.WhisperForConditionalGeneration
    assert transformers.WhisperTokenizer
    assert transformers.WhisperFeatureExtractor
    return lambda clips: []


CONTESTANTS: dict[str, Callable[[Path], Callable[[list[Path]], Texts]]] = {
    "ours": lambda models: common.predicting(
        models, f"batch_size={BATCH}, precision='fp32'"
    ),
    "ours, int8": lambda models: common.predicting(
        models, f"batch_size={BATCH}, precision='int8'"
    ),
    "ours, vad=False": lambda models: common.predicting(
        models, f"batch_size={BATCH}, precision='fp32', vad=False"
    ),
    PIPELINE[0]: lambda models: pipeline(models, 1, num_beams=1),
    PIPELINE[1]: lambda models: pipeline(models, BATCH, num_beams=1),
    AS_IT_COMES: lambda models: pipeline(models, 1),
    FASTER["fp32"][0]: lambda models: faster(models, "float32", 1),
    FASTER["fp32"][1]: lambda models: faster(models, "float32", BATCH),
    FASTER["int8"][0]: lambda models: faster(models, "int8", 1),
    FASTER["int8"][1]: lambda models: faster(models, "int8", BATCH),
    "imports": imports,
}
SETTINGS = {
    "ours": f"PREDICT ... AS SELECT audio FROM clips, batch_size {BATCH}",
    "pipeline": "fp32, greedy, decoded by soundfile, from a generator; alone and in "
    "batches, the better counts",
    "faster-whisper": "beam 1, one temperature, no timestamps, no VAD, decoded by "
    "soundfile; alone and batched, the better counts",
    "weights": "WhisperTinyEn, those of EXPORT MODEL",
    "peak memory": "of a process that imports, opens the model and transcribes",
    "word error rate": f"texts and references normalized as '{NORMALIZE}'",
    "order of clips": "as in the manifest: lengths mixed",
}


def work(name: str, models: Path, clips: list[Path]) -> None:
    """Transcribe whenever a line of standard input says so; first, to warm, two."""
    contestant = CONTESTANTS[name](models)
    common.answers(lambda turn: contestant(clips if turn else clips[:WARM_UP]))


def make_models(directory: Path) -> None:
    """Write the model for each contestant."""
    import thanosql

    with thanosql.connect(directory / "models.db") as connection:
        connection.execute("GET MODEL WhisperTinyEn OPTIONS (model_name='m')")
        connection.execute("EXPORT MODEL m TO ?", (str(directory / "hub"),))
    connection.close()
    if find_spec("ctranslate2"):
        from ctranslate2.converters import TransformersConverter

        files = ["tokenizer.json", "preprocessor_config.json"]
        converter = TransformersConverter(str(directory / "hub"), copy_files=files)
        converter.convert(str(directory / "ctranslate2"))


def compare(options: Any, models: Path) -> None:
    from thanosql.speech.metrics import word_errors
    from thanosql.speech.normalization import NORMALIZERS

    has_faster = (models / "ctranslate2").exists() and find_spec("faster_whisper")
    if not has_faster:
        print("faster-whisper is not installed: left out", file=sys.stderr)
    clips = common.clips("test", None if options.full else options.clips, models)
    paths = [clip.path for clip in clips]
    contestants = {
        name: common.Contestant(__file__, name, models, *paths)
        for name in CONTESTANTS
        if has_faster or not name.startswith("faster-whisper")
    }
    works = {name: contestant.run for name, contestant in contestants.items()}
    took = common.in_turn(works, options.rounds)
    texts = {name: contestant.answer for name, contestant in contestants.items()}
    peaks = {name: contestant.end() / 2**20 for name, contestant in contestants.items()}
    del took["imports"], texts["imports"]

    normalize = NORMALIZERS[NORMALIZE]
    references = [normalize(clip.text) for clip in clips]
    errors = {
        name: word_errors(references, [normalize(text) for text in found]).rate
        for name, found in texts.items()
    }
    total = sum(clip.seconds for clip in clips)

    def to(
        peer: str, names: Sequence[str], goal: float, subject: str = "ours"
    ) -> common.Ratio:
        # Seconds of the peer to ours: of its configurations, the best of each round.
        best = [min(each) for each in zip(*(took[n] for n in names), strict=True)]
        return common.ratio(
            f"{subject}, audio-s/s, to {peer}",
            best,
            took[subject],
            goal=goal,
            higher_is_better=True,
        )

    ratios = [
        to("the pipeline", PIPELINE, 2.0),
        to("the pipeline as it comes (5 beams)", [AS_IT_COMES], 2.0),
    ]
    if has_faster:
        ratios += [
            to("faster-whisper, fp32", FASTER["fp32"], 1.5),
            to("faster-whisper, int8", FASTER["int8"], 1.5, "ours, int8"),
        ]
    own, theirs, none = peaks["ours"], peaks[PIPELINE[1]], peaks["imports"]
    ratios += [
        to("ours", ["ours"], 1.0, "ours, int8"),
        common.ratio(
            f"ours, peak memory, to pipeline, batch {BATCH}",
            [own],
            [theirs],
            goal=0.6,
            higher_is_better=False,
        ),
        common.ratio(
            "the same above what imports take",
            [own - none],
            [theirs - none],
            goal=0.6,
            higher_is_better=False,
        ),
    ]

    def same(name: str, peer: str) -> str:
        pairs = zip(texts[name], texts[peer], strict=True)
        return f"{sum(a == b for a, b in pairs)} of {len(clips)}"

    common.report(
        options,
        packages=PACKAGES,
        settings=SETTINGS,
        measurements={
            "clips": len(clips),
            "audio_seconds": total,
            "audio_seconds_a_second": {
                name: [total / each for each in seconds]
                for name, seconds in took.items()
            },
            "peak_memory_mib": peaks,
            "word_error_rate": errors,
        },
        ratios=ratios,
        checks={
            "texts of vad=False that are those of the pipeline one at a time": same(
                "ours, vad=False", PIPELINE[0]
            ),
            "of the default": same("ours", PIPELINE[0]),
            "of the pipeline in batches": same(PIPELINE[1], PIPELINE[0]),
            **{f"word error rate, {name}": round(e, 4) for name, e in errors.items()},
        },
    )


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        make_models(Path(sys.argv[2]))
        return
    if sys.argv[1:2] == ["--worker"]:
        name, models, *clips = sys.argv[2:]
        work(name, Path(models), [Path(clip) for clip in clips])
        return
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--clips", type=int, default=SMALL_SET)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as models:
        subprocess.run(
            [sys.executable, __file__, "--make", models], check=True, stdout=sys.stderr
        )
        compare(options, Path(models))


if __name__ == "__main__":
    main()
