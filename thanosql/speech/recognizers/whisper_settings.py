"""Whisper's generation config: a request in; the tokens before a text, and its rules.

A text stands after a prefix of special tokens: <|startoftranscript|>, for a model of
several languages the language and the task, <|notimestamps|>; before them, after
<|startofprev|>, the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from thanosql.errors import DataError, OptionError, nearest
from thanosql.speech.decoding.decoding import NO_REQUEST
from thanosql.speech.decoding.windows_text import WindowTexts
from thanosql.speech.recognizers.generation import end_token, rules

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from thanosql.speech.decoding.decoding import Request
    from thanosql.speech.decoding.search import Rules

_WAY_OUT = "take both of the model that it was made from"


@dataclass(frozen=True, slots=True)
class Dictation:
    """How Whisper is to write: a `Decoding`."""

    language: int | None
    "The token of the language; None if the model is to find it, or knows only one."
    task: int | None
    "The token of the task; None for a model that knows only one language."
    prompt: tuple[int, ...]
    "Tokens of the text before, <|startofprev|> at the front; may be empty."
    beam_size: int
    into_english: bool
    "Whether the text is a translation."
    words: bool
    "Whether the times of words are wanted."

    def start(self, expected: tuple[str, ...] = ()) -> WindowTexts:
        """Return a decoder for one recording."""
        return WindowTexts("en" if self.into_english else None, words=self.words)


class WhisperSettings:
    """What a model's generation config says, as far as Whisper has it."""

    def __init__(
        self, model: PreTrainedModel, encode: Callable[[str], tuple[int, ...]]
    ) -> None:
        """Read the config of a model. encode: returns the ids of a text."""
        untyped: Any = model
        self._config: Any = untyped.generation_config
        self._positions = int(untyped.config.max_target_positions)
        self._outputs = int(untyped.config.vocab_size)
        self._encode = encode

    def check(self, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
        """Raise DataError if the config's tokens are not the tokenizer's.

        where: the model's name for errors. A token that older configs lack is added.
        """
        config: Any = self._config
        start, before = "<|startoftranscript|>", "<|startofprev|>"
        if getattr(config, "prev_sot_token_id", None) is None:
            config.prev_sot_token_id = tokenizer.convert_tokens_to_ids(before)
        tokens = {
            start: config.decoder_start_token_id,
            before: config.prev_sot_token_id,
            "<|endoftext|>": config.eos_token_id and self.end,
            "<|notimestamps|>": getattr(config, "no_timestamps_token_id", None),
        }
        if getattr(config, "is_multilingual", True):
            tokens |= getattr(config, "lang_to_id", None) or {"<|en|>": None}
            tasks = getattr(config, "task_to_id", None) or {"transcribe": None}
            tokens |= {f"<|{task}|>": number for task, number in tasks.items()}
        known = tokenizer.get_vocab()
        for token, number in tokens.items():
            if number is None or known.get(token) != number:
                message = (
                    f"{where}: {token} is token {number} in generation_config.json and "
                    f"{known.get(token)} in the tokenizer; {_WAY_OUT}"
                )
                raise DataError(message)
        never, not_first = config.suppress_tokens or (), config.begin_suppress_tokens
        for number in (*never, *(not_first or ()), max(known.values())):
            if number not in range(self._outputs):
                message = (
                    f"{where}: the model has {self._outputs} outputs, its tokenizer or "
                    f"generation_config.json a token {number!r:.20}; {_WAY_OUT}"
                )
                raise DataError(message)
        try:
            self.dictation(NO_REQUEST)
        except OptionError as error:
            message = f"{where}: its generation_config.json is wrong: {error}"
            raise DataError(message) from error

    @cached_property
    def start(self) -> int:
        """The token <|startoftranscript|>."""
        return int(self._config.decoder_start_token_id)

    @cached_property
    def end(self) -> int:
        """The token <|endoftext|>."""
        return end_token(self._config)

    @cached_property
    def languages(self) -> dict[str, int]:
        """Language code -> token; empty for a model of English only."""
        if not getattr(self._config, "is_multilingual", True):
            return {}
        known: dict[str, int] = getattr(self._config, "lang_to_id", None) or {}
        return {name.strip("<|>"): int(token) for name, token in known.items()}

    @cached_property
    def codes(self) -> dict[int, str]:
        """Token -> language code."""
        return {token: code for code, token in self.languages.items()}

    def dictation(self, request: Request) -> Dictation:
        """Return what a statement asks for; what it leaves open is the config's.

        Raises OptionError for a language that the model lacks, a translation by a model
        of English only, or a prompt that is too long.
        """
        task = self._task(request.task)
        return Dictation(
            language=self._language(request.language),
            task=None if task is None else self._tasks[task],
            prompt=() if request.prompt is None else self._prompt(request.prompt),
            beam_size=request.beam_size or self._config.num_beams or 1,
            into_english=task == "translate",
            words=request.words,
        )

    def adopt(self, request: Request) -> Request:
        """Make the language and the task of the texts to train on the config's own.

        Returns the request with both, where the model knows more than one of them.
        Raises OptionError if a model of several languages has none of its own and is
        told none.
        """
        dictation = self.dictation(request)
        if not self.languages:
            return request
        if dictation.language is None:
            message = (
                "the model knows many languages; say which one the texts are in, such "
                "as language='en'"
            )
            raise OptionError(message)
        language, task = self.codes[dictation.language], self._task(request.task)
        self._config.language, self._config.task = language, task
        self._config.forced_decoder_ids = None  # the older way to say the same
        return replace(request, language=language, task=task)

    def prefix(self, dictation: Dictation, language: int | None) -> tuple[int, ...]:
        """Return the tokens before a text. language: its token, if there is one."""
        middle = (language, dictation.task, self._config.no_timestamps_token_id)
        special = (token for token in middle if token is not None)
        return (*dictation.prompt, self.start, *special)

    def rules(self, prefix_length: int, device: torch.device) -> Rules:
        """Return what a text after such a prefix may be."""
        config = self._config
        longest = config.max_new_tokens or config.max_length or self._positions
        return rules(config, min(longest, self._positions - prefix_length), device)

    def _language(self, wanted: str | None) -> int | None:
        """Return the token of a language that is asked for, or that is the config's."""
        own = getattr(self._config, "language", None) or self._forced(1)
        if isinstance(own, list):  # one for each row of somebody's batch
            own = None
        wanted = wanted or own or "auto"
        if not self.languages:
            if wanted.casefold() in ("auto", "en", "english"):
                return None
            message = (
                f"the model knows English only, not language {wanted!r}; use one of "
                "several languages, such as WhisperSmall"
            )
            raise OptionError(message)
        code = wanted.casefold().strip("<|>")
        if code == "auto":
            return None
        code = TO_LANGUAGE_CODE.get(code, code)
        if code not in self.languages:
            known = {*self.languages, *(LANGUAGES.get(c, c) for c in self.languages)}
            hint = nearest(wanted, known) or (
                f"; it knows {', '.join(sorted(self.languages))}"
            )
            message = f"the model has no language {wanted!r}{hint}"
            raise OptionError(message)
        return self.languages[code]

    @cached_property
    def _tasks(self) -> dict[str, int]:
        """Task -> token; empty for a model of English only."""
        if not self.languages:
            return {}
        return dict(getattr(self._config, "task_to_id", None) or {})

    def _task(self, wanted: str | None) -> str | None:
        """Return the task that is asked for, or that is the config's."""
        if not self.languages:
            if wanted == "translate":
                message = (
                    "the model knows English only, so it cannot translate; use one of "
                    "several languages, such as WhisperSmall"
                )
                raise OptionError(message)
            return None
        own = getattr(self._config, "task", None) or self._forced(2)
        task = wanted or own or "transcribe"
        if task not in self._tasks:
            message = f"the model has no task {task!r}; it has {', '.join(self._tasks)}"
            raise OptionError(message)
        return task

    def _prompt(self, text: str) -> tuple[int, ...]:
        prompt = self._encode(" ".join(text.split()))
        most = self._positions // 2 - 2
        if len(prompt) > most:
            message = (
                f"option prompt has {len(prompt)} tokens; the model takes {most} at "
                "most, so shorten it"
            )
            raise OptionError(message)
        return (int(self._config.prev_sot_token_id), *prompt)

    def _forced(self, position: int) -> str | None:
        """Return the language or task at a position of an older config's prefix."""
        forced = dict(getattr(self._config, "forced_decoder_ids", None) or ())
        tasks = {token: name for name, token in self._tasks.items()}
        names = {**self.codes, **tasks}
        return names.get(forced.get(position, -1))
