"""Transcripts in, subword ids of a model that writes any text out, and the way back."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from thanosql.speech.decoding.spelling import Normalized

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Subwords:
    """Byte-pair encoding down to the byte: any text can be written."""

    tokenizer: PreTrainedTokenizerBase
    begin: str = " "
    """What is put before a text.

    A space for Whisper, as in the texts that it was trained on; nothing if the
    tokenizer itself puts one there.
    """

    def normalize(self, text: str) -> Normalized:
        """Return the text in NFC with single spaces; no character is dropped."""
        return Normalized(" ".join(unicodedata.normalize("NFC", text).split()))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text, without special tokens; () for an empty one."""
        if not text:
            return ()
        # A text that holds the name of a special token, such as <|en|>, is still text.
        encoded: Any = self.tokenizer(
            f"{self.begin}{text}", add_special_tokens=False, split_special_tokens=True
        )
        return tuple(encoded["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids; special tokens are left out."""
        text: Any = self.tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return str(text).strip()

    def ends(self, ids: Sequence[int], text: str) -> list[int]:
        """Return how many characters of the text are written after each of its tokens.

        text: what `decode` makes of all the ids. A token may hold a part of a character
        only, which counts as written with its last part.
        """
        found: list[int] = []
        for count in range(1, len(ids)):
            pairs = zip(self.decode(ids[:count]), text, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            found.append(max([same, *found[-1:]]))
        return [*found, len(text)] if ids else []
