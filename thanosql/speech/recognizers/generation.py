"""A generation config of transformers in, the rules of a search out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers

from thanosql.speech.decoding.search import Rules

if TYPE_CHECKING:
    from collections.abc import Sequence

# Any, since transformers is only partly annotated.
_hf: Any = transformers


def end_token(config: Any) -> int:
    """Return the token that ends a text, the first if a config names several."""
    end = config.eos_token_id
    return int(end[0] if isinstance(end, list) else end)


def rules(config: Any, longest: int, device: torch.device) -> Rules:
    """Return what a text may be.

    config: a GenerationConfig. longest: the most tokens of a text, its end included.
    """
    processors = []
    if config.repetition_penalty not in (None, 1.0):
        penalty = config.repetition_penalty
        processors.append(_hf.RepetitionPenaltyLogitsProcessor(penalty))
    if config.no_repeat_ngram_size:
        size = config.no_repeat_ngram_size
        processors.append(_hf.NoRepeatNGramLogitsProcessor(size))

    def on_device(tokens: Sequence[int] | None) -> torch.Tensor:
        return torch.tensor(tokens or [], dtype=torch.long, device=device)

    return Rules(
        end=end_token(config),
        longest=max(1, longest),
        never=on_device(config.suppress_tokens),
        not_first=on_device(config.begin_suppress_tokens),
        length_penalty=1.0 if config.length_penalty is None else config.length_penalty,
        processors=processors,
    )
