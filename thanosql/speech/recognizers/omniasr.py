"""OmniASR's CTC models: as `padded.py`, with another blank and input shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thanosql.speech.recognizers.padded import PaddedRecognizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


class OmniASRRecognizer(PaddedRecognizer):
    """OmniASR: it takes (batch, 1, samples), and its blank is not its padding token."""

    @property
    def blank(self) -> int:
        """The token id of the CTC blank."""
        config: Any = self.model.config
        return int(config.blank_token_id)

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The convolutions over the waveform."""
        encoder: nn.Module = self._tower.subsampling
        return encoder

    @property
    def masked(self) -> nn.Module:
        """The first module after the convolutions, whose input SpecAugment masks."""
        encoder: nn.Module = self._tower.encode_positions
        return encoder

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return one utterance, (samples,), normalized."""
        features: Tensor = super().features(waveform)[0]  # (1, samples) to (samples,)
        return features

    def frames(self, length: int) -> int:
        """Return how many frames of logits so many samples give; may be 0."""
        return max(0, int(self._tower._get_subsampling_output_length(length)))

    def own_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return transformers' logits (1, frames, vocab) of one utterance."""
        return super().own_logits([each[None] for each in inputs])

    @property
    def _tower(self) -> Any:
        base: Any = self.model.base_model
        return base.audio_tower
