"""How fast, and how exactly, PREDICT transcribes real recordings on a CPU.

    python benchmarks/transcription.py                20 clips, a minute a round
    python benchmarks/transcription.py --full         all test clips

A wav2vec2-base (94 million parameters, group norm, as facebook/wav2vec2-base-960h;
random weights: speed does not depend on them) reads test clips of LibriSpeech, flac and
mp3, from the encoded file to the text. Each contestant has a process of its own, for
its peak memory, and they run in turn. Needs onnxruntime and onnxscript beside us.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common

PACKAGES = ("torch", "transformers", "onnxruntime", "soundfile")
LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
SMALL_SET = 20  # clips
WARM_UP = 2  # clips, the shortest and the longest

Texts = list[str]


def pipeline(
    models: Path, batch_size: int, device: str = "cpu", dtype: str = "float32"
):
    import soundfile
    import transformers

    recognize = transformers.pipeline(
        "automatic-speech-recognition", model=str(models), device=device, dtype=dtype
    )

    def recordings(clips: list[Path]):
        for clip in clips:
            samples, rate = soundfile.read(clip, dtype="float32")
            yield {"raw": samples, "sampling_rate": rate}

    def transcribe(clips: list[Path]) -> Texts:
        results = recognize(recordings(clips), batch_size=batch_size)
        return [result["text"] for result in results]

    return transcribe


def one_at_a_time(models: Path, logits_of: Any):
    import soundfile
    import transformers

    processor = transformers.Wav2Vec2Processor.from_pretrained(models)

    def transcribe(clips: list[Path]) -> Texts:
        texts = []
        for clip in clips:
            samples, rate = soundfile.read(clip, dtype="float32")
            inputs = processor(samples, sampling_rate=rate, return_tensors="pt")
            best = logits_of(inputs.input_values).argmax(-1)
            texts += processor.batch_decode(best)
        return texts

    return transcribe


def loop(models: Path):
    import torch
    import transformers

    model = transformers.Wav2Vec2ForCTC.from_pretrained(models).eval()

    @torch.inference_mode()
    def logits_of(values: Any) -> Any:
        return model(values).logits

    return one_at_a_time(models, logits_of)


def onnx(models: Path):
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = onnxruntime.InferenceSession(
        models / "model.onnx", options, providers=["CPUExecutionProvider"]
    )

    def logits_of(values: Any) -> Any:
        return session.run(None, {"input_values": values.numpy()})[0]

    return one_at_a_time(models, logits_of)


def matrix_limit(models: Path):
    import torch

    # The products of a base model, over 40 s of audio at once.
    shapes = [(2048, 768, 3072), (2048, 3072, 768), (2048, 1536, 512)]
    operands = [(torch.randn(m, k), torch.randn(k, n)) for m, k, n in shapes]
    results = [torch.empty(m, n) for m, _, n in shapes]

    def gflop_a_second(clips: list[Path]) -> float:
        best = 0.0
        for _ in range(20):
            for (a, b), result in zip(operands, results, strict=True):
                began = time.perf_counter()
                torch.mm(a, b, out=result)
                seconds = time.perf_counter() - began
                best = max(best, 2e-9 * a.numel() * b.shape[1] / seconds)
        return best

    return gflop_a_second


def imports(models: Path):
    import transformers

    import thanosql.speech.transcription  # noqa: F401

    # What opening a model imports of transformers, on either side.
    assert transformers.Wav2Vec2ForCTC
    assert transformers.Wav2Vec2Processor
    return lambda clips: None


CONTESTANTS = {
    "ours": lambda models: common.predicting(models, "precision='fp32'"),
    "ours, int8": lambda models: common.predicting(models, "precision='int8'"),
    "pipeline, batch 8": lambda models: pipeline(models, 8),
    "pipeline, batch 1": lambda models: pipeline(models, 1),
    "transformers, loop": loop,
    "onnxruntime, batch 1": onnx,
    "matrix limit": matrix_limit,
    "imports": imports,
}
SETTINGS = {
    "ours": "PREDICT ... AS SELECT audio FROM clips, defaults (batch_size 16)",
    "pipeline": "recordings decoded by soundfile, from a generator",
    "onnxruntime": "fp32, all graph optimizations, sequential, one utterance at a time",
    "matrix limit": "best of 60 torch.mm(out=) of 2048 rows, the model's shapes",
    "peak memory": "of a process that imports, opens the model and transcribes",
    "order of clips": "as in the manifests: lengths mixed",
}


def work(name: str, models: Path, clips: list[Path]) -> None:
    """Transcribe whenever a line of standard input says so."""
    contestant = CONTESTANTS[name](models)
    warm_up = sorted(clips, key=lambda clip: clip.stat().st_size)[:: len(clips) - 1]
    common.answers(lambda turn: contestant(clips if turn else warm_up[:WARM_UP]))


def make_model(directory: Path) -> Any:
    """Write a wav2vec2-base of random weights, also as our models.db; return it."""
    import torch
    import transformers

    import thanosql

    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    (directory / "vocab.json").write_text(
        json.dumps({token: i for i, token in enumerate(tokens)})
    )
    transformers.Wav2Vec2Processor(
        transformers.Wav2Vec2FeatureExtractor(return_attention_mask=False),
        transformers.Wav2Vec2CTCTokenizer(str(directory / "vocab.json")),
    ).save_pretrained(directory)
    torch.manual_seed(0)
    model = transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(vocab_size=len(tokens))
    ).eval()
    follow_the_sounds(model)
    model.save_pretrained(directory)
    with thanosql.connect(directory / "models.db") as connection:
        connection.execute("IMPORT MODEL m FROM ?", (str(directory),))
    connection.close()
    return model


def follow_the_sounds(model: Any) -> None:
    """Have a wav2vec2-base of random weights write letters that follow the sounds.

    So that comparing texts says something, and BUILD does not refuse the model: else
    each frame is alike, as far as layers and attention of random weights can tell.
    """
    import torch

    with torch.no_grad():
        for layer in model.wav2vec2.encoder.layers:
            layer.attention.out_proj.weight *= 0.1
            layer.feed_forward.output_dense.weight *= 0.3
        model.wav2vec2.encoder.pos_conv_embed.conv.parametrizations.weight.original0.mul_(
            0.1
        )
        model.wav2vec2.feature_projection.projection.weight *= 3
        model.lm_head.bias[0] = -1.0
        model.lm_head.bias[1:4] = -100.0  # transformers writes "</s>" out, we do not


def export_onnx(model: Any, directory: Path) -> None:
    """Write the model for onnxruntime."""
    import torch

    class Logits(torch.nn.Module):
        def forward(self, input_values: torch.Tensor) -> torch.Tensor:
            return model(input_values).logits

    torch.onnx.export(
        Logits().eval(),
        (torch.randn(1, 48_000),),
        directory / "model.onnx",
        input_names=["input_values"],
        dynamic_shapes={"input_values": {1: torch.export.Dim("samples", min=400)}},
        dynamo=True,
        verbose=False,
    )


def recordings(full: bool) -> tuple[list[Path], list[float]]:
    """Return the clips and how long each is in seconds."""
    found = []
    for folder in ("librispeech", "librispeech_mp3"):
        directory = common.RECORDINGS / folder
        with (directory / "manifest.csv").open(encoding="utf-8") as file:
            found += [
                (directory / row["audio"], float(row["seconds"]))
                for row in csv.DictReader(file)
                if row["split"] == "test"
            ]
    if not full:  # every so many by length, the shortest and the longest with them
        by_length = sorted(found, key=lambda clip: clip[1])
        step = (len(found) - 1) / (SMALL_SET - 1)
        chosen = {by_length[round(i * step)] for i in range(SMALL_SET)}
        found = [clip for clip in found if clip in chosen]
    return [clip for clip, _ in found], [seconds for _, seconds in found]


def gflop(seconds: float) -> float:
    """Return what the matrix products of a wav2vec2-base take for one utterance."""
    length, multiplied = int(16_000 * seconds), 0
    width = 1
    for kernel, stride in [(10, 5), *[(3, 2)] * 4, *[(2, 2)] * 2]:
        length = (length - kernel) // stride + 1
        multiplied += length * kernel * width * 512
        width = 512
    multiplied += length * 512 * 768  # feature projection
    multiplied += length * 128 * 48 * 768  # positions: 16 groups of 48 channels
    a_layer = 4 * 768 * 768 + 2 * 768 * 3072 + 2 * length * 768  # last is attention
    multiplied += 12 * length * a_layer
    multiplied += length * 768 * 32  # letters
    return 2e-9 * multiplied


def same(ours: Texts, theirs: Texts) -> str:
    """Return how many texts agree, but for white space."""
    agree = sum(a.split() == b.split() for a, b in zip(ours, theirs, strict=True))
    return f"{agree} of {len(ours)}"


def compare(options: Any, models: Path) -> None:
    clips, seconds = recordings(options.full)
    contestants = {}
    for name in CONTESTANTS:
        contestants[name] = common.Contestant(__file__, name, models, *clips)
    limits: list[float] = []

    def measure_limit() -> None:
        contestants["matrix limit"].run()
        limits.append(contestants["matrix limit"].answer)

    works = {name: contestant.run for name, contestant in contestants.items()}
    works["matrix limit"] = measure_limit
    took = common.in_turn(works, options.rounds)
    texts = {name: contestant.answer for name, contestant in contestants.items()}
    peaks = {name: contestant.end() / 2**20 for name, contestant in contestants.items()}
    del took["matrix limit"], took["imports"]

    total = sum(seconds)
    speeds = {name: [total / each for each in took[name]] for name in took}
    product = sum(gflop(each) for each in seconds) / total
    alone, empty = texts["pipeline, batch 1"], texts["ours"].count("")

    def to(peer: str, goal: float, subject: str = "ours") -> common.Ratio:
        return common.ratio(
            f"{subject}, audio-s/s, to {peer}",
            speeds[subject],
            speeds[peer],
            goal=goal,
            higher_is_better=True,
        )

    common.report(
        options,
        packages=PACKAGES,
        settings=SETTINGS,
        measurements={
            "clips": len(clips),
            "audio_seconds": total,
            "gflop_an_audio_second": product,
            "matrix_limit_gflop_a_second": limits,
            "audio_seconds_a_second": speeds,
            "peak_memory_mib": peaks,
        },
        ratios=[
            to("pipeline, batch 8", 1.6),
            to("pipeline, batch 1", 1.2),
            to("transformers, loop", 1.2),
            to("onnxruntime, batch 1", 1.0),
            common.ratio(
                "ours, GFLOP/s, to the matrix limit",
                [product * speed for speed in speeds["ours"]],
                limits,
                goal=0.85,
                higher_is_better=True,
            ),
            common.ratio(
                "ours, peak memory, to pipeline, batch 8",
                [peaks["ours"]],
                [peaks["pipeline, batch 8"]],
                goal=0.5,
                higher_is_better=False,
            ),
            common.ratio(
                "the same above what imports take",
                [peaks["ours"] - peaks["imports"]],
                [peaks["pipeline, batch 8"] - peaks["imports"]],
                goal=0.5,
                higher_is_better=False,
            ),
            to("ours", 1.4, subject="ours, int8"),
        ],
        checks={
            "our texts that are those of the pipeline one at a time": same(
                texts["ours"], alone
            ),
            "of the pipeline in batches of 8": same(texts["pipeline, batch 8"], alone),
            "of onnxruntime": same(texts["onnxruntime, batch 1"], alone),
            "different texts among ours": f"{len(set(texts['ours']))}, {empty} empty",
        },
    )


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        directory = Path(sys.argv[2])
        export_onnx(make_model(directory), directory)
        return
    if sys.argv[1:2] == ["--worker"]:
        name, models, *clips = sys.argv[2:]
        work(name, Path(models), [Path(clip) for clip in clips])
        return
    parser = common.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--models", type=Path, help="keep the models here for next time"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        models = options.models or Path(temporary)
        if not (models / "model.onnx").exists():
            models.mkdir(parents=True, exist_ok=True)
            subprocess.run(
                [sys.executable, __file__, "--make", models],
                check=True,
                stdout=sys.stderr,
            )
        compare(options, models)


if __name__ == "__main__":
    main()
