"""OmniASR's CTC models: another blank, another shape of input, else as `padded.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from thanosql.speech.recognizers.padded import PaddedRecognizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn


class OmniASRRecognizer(PaddedRecognizer):
    """An encoder of waveforms, (batch, 1, samples), whose blank is not its padding."""

    @property
    def blank(self) -> int:
        """The token id that stands for no letter."""
        config: Any = self.model.config
        return int(config.blank_token_id)

    @property
    def feature_encoder(self) -> nn.Module | None:
        """The convolutions over the waveform."""
        encoder: nn.Module = self._tower.subsampling
        return encoder

    @property
    def encoder(self) -> nn.Module:
        """The first module behind those convolutions."""
        encoder: nn.Module = self._tower.encode_positions
        return encoder

    def features(self, waveform: NDArray[np.float32]) -> Tensor:
        """Return one utterance, (samples,), normalized."""
        features: Tensor = super().features(waveform)[0]  # of its one channel
        return features

    def frames(self, length: int) -> int:
        """Return how many frames of logits come of so many samples, perhaps 0."""
        return max(0, int(self._tower._get_subsampling_output_length(length)))

    def own_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the model's own logits (1, frames, vocab) of one utterance."""
        return super().own_logits([each[None] for each in inputs])

    @property
    def _tower(self) -> Any:
        base: Any = self.model.base_model
        return base.audio_tower
