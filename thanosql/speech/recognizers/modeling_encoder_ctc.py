"""A CTC head on the encoder of a model that writes text: features in, logits out.

EXPORT MODEL writes this file beside the weights, so that transformers opens them where
thanosql is not installed (`trust_remote_code=True`). So it imports nothing of thanosql.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

# What only a whole model has a say in: where it lies, its number format, and code.
_NOT_NESTED = frozenset(
    (
        "_name_or_path",
        "architectures",
        "attn_implementation",
        "_attn_implementation",
        "auto_map",
        "dtype",
        "experts_implementation",
        "_experts_implementation",
        "torch_dtype",
    )
)


class EncoderCTCConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """An encoder's config, and the vocabulary that its frames are scored for.

    encoder_config: the config of an encoder, or of the whole model that it is part of;
    one of transformers, or as a dict with its `model_type`.
    """

    model_type = "encoder_ctc"

    def __init__(
        self,
        encoder_config: Any = None,
        vocab_size: int = 32,
        pad_token_id: int = 0,
        **others: Any,
    ) -> None:
        """Set pad_token_id, which is the CTC blank, and the rest."""
        if isinstance(encoder_config, dict):
            settings = {k: v for k, v in encoder_config.items() if k not in _NOT_NESTED}
            kind = settings.pop("model_type")
            encoder_config = AutoConfig.for_model(kind, **settings)
        self.encoder_config = encoder_config or AutoConfig.for_model("whisper")
        self.vocab_size = vocab_size
        self.pad_token_id = pad_token_id
        super().__init__(**others)
        file = "modeling_encoder_ctc"
        self.auto_map = {
            "AutoConfig": f"{file}.EncoderCTCConfig",
            "AutoModelForCTC": f"{file}.EncoderForCTC",
        }

    def to_dict(self) -> dict[str, Any]:
        """Return all settings, those of the encoder as a dict in them."""
        settings: dict[str, Any] = super().to_dict()
        settings["encoder_config"] = self.encoder_config.to_dict()
        return settings


class EncoderForCTC(PreTrainedModel):  # type: ignore[no-untyped-call]
    """An encoder of transformers and a linear layer that scores its frames.

    An utterance is heard without padding, as long as it is. Only Whisper's is padded on
    a GPU, where `encode` masks it exactly.
    """

    config_class = EncoderCTCConfig
    base_model_prefix = "encoder"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: EncoderCTCConfig) -> None:
        """Make the model that the encoder is part of, and keep no more than that."""
        super().__init__(config)
        auto: Any = AutoModel  # Any, since transformers is only partly annotated
        whole = auto.from_config(config.encoder_config, trust_remote_code=False)
        self.encoder = whole.get_encoder() if hasattr(whole, "decoder") else whole
        width = self.encoder.config.hidden_size
        self.lm_head = nn.Linear(width, config.vocab_size)
        self.main_input_name = self.encoder.main_input_name
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.lm_head:
            module.reset_parameters()

    @property
    def is_whisper(self) -> bool:
        """Whether time is the last axis of the features, not the one after batch."""
        return bool(self.config.encoder_config.model_type == "whisper")

    def frames(self, length: int) -> int:
        """Return how many frames there are for features of this length."""
        encoder: Any = self.encoder
        for name in (
            "_get_subsampling_output_length",
            "_get_feat_extract_output_lengths",
        ):
            formula = getattr(encoder, name, None)
            if formula is not None:
                # Some take a number only, some a tensor.
                return int(torch.as_tensor(formula(torch.tensor(length))))
        message = f"{type(encoder).__name__} does not tell how many frames it makes"
        raise NotImplementedError(message)

    def forward(
        self,
        input_features: Tensor | None = None,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput:
        """Return logits (batch, frames, vocab), and with labels CTC's mean loss.

        input_features: (batch, mels, frames) for Whisper, (batch, frames, mels) for
        others; input_values: (batch, samples). attention_mask: (batch, frames or
        samples), 1 where there is no padding. labels: (batch, tokens), -100 as padding.
        """
        inputs = input_values if input_features is None else input_features
        if inputs is None:
            message = f"{self.main_input_name} is missing"
            raise ValueError(message)
        time = 2 if self.is_whisper else 1
        lengths = torch.full((len(inputs),), inputs.shape[time])
        if attention_mask is not None:
            lengths = attention_mask.sum(1).cpu()
        alone = [
            each[None].narrow(time, 0, int(length))
            for each, length in zip(inputs, lengths, strict=True)
        ]
        rows = [self.lm_head(self.encode(each))[0] for each in alone]
        logits = pad_sequence(rows, batch_first=True)
        loss = None
        if labels is not None:
            spoken = labels >= 0
            loss = functional.ctc_loss(
                logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1),
                labels[spoken],
                torch.tensor([len(row) for row in rows]),
                spoken.sum(1).cpu(),
                blank=self.config.pad_token_id,
            )
        return CausalLMOutput(loss=loss, logits=logits)

    def encode(self, inputs: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Return the encoder's frames (batch, frames, width).

        inputs: features as `forward` takes them, of equally long utterances. lengths:
        of the features of each utterance, if they are not; for Whisper only.
        """
        if self.is_whisper:
            return encode(self.encoder, inputs, lengths)
        settings = {}
        if hasattr(self.encoder.config, "default_num_lookahead_tokens"):  # Nemotron's
            ahead = self.encoder.config.default_num_lookahead_tokens
            settings["num_lookahead_tokens"] = ahead
        frames: Tensor = self.encoder(**{self.main_input_name: inputs}, **settings)[0]
        return frames


def encode(encoder: Any, features: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Return the frames (batch, n, width) of log-mels (batch, mels, 2 n).

    encoder: `WhisperEncoder`, whose own forward takes 30 s and nothing else. n: at most
    as many as it has positions. lengths: how many of the 2 n each utterance has, if
    they differ: then what is beyond has no influence on them.
    """
    training = encoder.training
    mask = None
    if lengths is not None:
        features = features * _inside(lengths, features.shape[2], features)[:, None]
    hidden = functional.gelu(encoder.conv1(features))
    if lengths is not None:
        hidden = hidden * _inside(lengths, hidden.shape[2], hidden)[:, None]
    hidden = functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    if lengths is not None:
        outside = 1 - _inside((lengths + 1) // 2, hidden.shape[1], hidden)
        mask = outside[:, None, None] * torch.finfo(hidden.dtype).min
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    hidden = functional.dropout(hidden, encoder.dropout, training)
    for layer in encoder.layers:
        if training and encoder.layerdrop > 0 and torch.rand([]) < encoder.layerdrop:
            continue
        hidden = layer(hidden, mask)
    last: Tensor = encoder.layer_norm(hidden)
    return last


def _inside(lengths: Tensor, longest: int, like: Tensor) -> Tensor:
    """Return (batch, longest): 1 before each length, 0 after it."""
    places = torch.arange(longest, device=like.device)
    return (places < lengths.to(like.device)[:, None]).to(like.dtype)
