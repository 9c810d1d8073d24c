"""A CTC head on the encoder of a model that writes: features in, CTC logits out.

The encoder has learned to hear from far more recordings than most people have; the
head is a linear layer, and learns in minutes. There is no decoder, so each frame is
scored by itself: nothing is invented, nothing loops, and times are the frames' own.
`modeling_encoder_ctc.py` has the model. An encoder of Parakeet's needs none of this:
with a head it is `ParakeetForCTC`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from thanosql.errors import NotSupportedError
from thanosql.speech.recognizers.padded import PaddedRecognizer
from thanosql.speech.sound.audio import SAMPLE_RATE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from thanosql.speech.recognizers.draws import Draws
    from thanosql.speech.sound.windows import Windows


class EncoderCTCRecognizer(PaddedRecognizer):
    """`EncoderForCTC`: the encoder of a Whisper, a Moonshine and others, with a head.

    Features are the encoder's: (samples,) or (frames, mels), of the recording without
    the silence that Whisper itself is given. In their place the encoder's output may
    stand, (frames, width), as `frozen` returns it.
    """

    # Far above a Whisper's own: a decoder learns from the encoder at a low rate, the
    # encoder learns to spell without one.
    learning_rate = 2e-4

    def check(self, where: str) -> None:
        """Raise if model, tokenizer and feature extractor do not belong together."""
        super().check(where)
        # Others' programs learn from it how long each recording of a batch is.
        self.feature_extractor.return_attention_mask = True

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return the model's input for one utterance, without padding."""
        if not self._is_whisper:
            return super().features(waveform)
        extractor = self.feature_extractor
        # With silence after it: the frames are those of a recording filled up to 30 s.
        padded = np.zeros(len(waveform) + 2 * extractor.n_fft, np.float32)
        padded[: len(waveform)] = waveform
        mels = extractor(padded, sampling_rate=SAMPLE_RATE, padding="do_not_pad")
        frames = torch.from_numpy(mels["input_features"][0].T)
        return frames[: -(-len(waveform) // extractor.hop_length)].clone()

    def frames(self, length: int) -> int:
        """Return how many frames of logits features of this length give; may be 0."""
        if length < 1:
            return 0
        try:
            return max(0, int(self._untyped.frames(length)))
        except NotImplementedError as error:
            raise NotSupportedError(str(error)) from error

    def windows(
        self, chunk_seconds: float, vad: Literal["auto"] | bool = "auto"
    ) -> Windows:
        """Return windows that overlap, of at most as much as the encoder hears."""
        return super().windows(min(chunk_seconds, self._most_seconds), vad)

    def logits(
        self, batch: Sequence[Tensor], draws: Draws | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, frames, vocab) and lengths (batch,)."""
        head = self._untyped.lm_head
        rows = [head(frames) for frames in self._encoded(batch)]
        lengths = torch.tensor([len(row) for row in rows])
        return pad_sequence(rows, batch_first=True), lengths

    def misfit(self, targets: Sequence[int], length: int, seconds: float) -> str:
        """Return why no training can fit the targets to the features; "" if one can."""
        if seconds > self._most_seconds:
            return (
                f"recording of {seconds:.2f} s: the encoder hears at most "
                f"{self._most_seconds:g} s; cut it, and its text, into shorter ones"
            )
        return super().misfit(targets, length, seconds)

    def frozen(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames if it is frozen, else the features."""
        if not self._can_tell_frames or any(
            p.requires_grad for p in self._untyped.encoder.parameters()
        ):
            return list(batch)
        with torch.no_grad():
            return self._encoded(batch)

    # The model

    @property
    def _untyped(self) -> Any:
        return self.model

    @property
    def _is_whisper(self) -> bool:
        return bool(self._untyped.is_whisper)

    @property
    def _width(self) -> int:
        return int(self._untyped.lm_head.in_features)

    @property
    def _can_tell_frames(self) -> bool:
        """Whether frames differ from features in their width."""
        return self._width != self.mel_bins

    @property
    def _most_seconds(self) -> float:
        """The most seconds that the encoder hears at once; infinity without a limit."""
        config = self._untyped.config.encoder_config
        most = getattr(config, "max_source_positions", None)
        if config.model_type.startswith("nemotron"):
            most = config.max_position_embeddings
        return float("inf") if most is None else most * self.stride / SAMPLE_RATE

    def _encoded(self, batch: Sequence[Tensor]) -> list[Tensor]:
        """Return the encoder's frames (frames, width) of each utterance.

        batch: features, or such frames, which are returned as they are.
        """
        outputs = [each.to(self.device, non_blocking=True) for each in batch]
        unheard = []
        for i, each in enumerate(outputs):
            if (
                each.dim() > 1
                and each.shape[1] == self._width
                and self._can_tell_frames
            ):
                continue
            if self.frames(len(each)):
                unheard.append(i)
            else:
                outputs[i] = each.new_zeros(0, self._width)
        if self._is_whisper and self.device.type != "cpu" and len(unheard) > 1:
            # A GPU takes all at once; `encode` masks the padding exactly.
            lengths = torch.tensor([len(outputs[i]) for i in unheard])
            rows = [outputs[i] for i in unheard]
            padded = pad_sequence(rows, batch_first=True).transpose(1, 2)
            together = self._untyped.encode(padded, lengths)
            for i, frames in zip(unheard, together, strict=True):
                outputs[i] = frames[: self.frames(len(batch[i]))]
            return outputs
        for i in unheard:
            inputs = outputs[i][None]
            if self._is_whisper:
                inputs = inputs.transpose(1, 2)
            outputs[i] = self._untyped.encode(inputs)[0]
        return outputs
