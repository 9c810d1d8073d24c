"""Search of models that write a token at a time: next-token scores in, texts out.

A text ends with the end token, or when it has the most tokens that the model can write.
All texts of a batch are written together; one that has ended takes no further step, so
its length is its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


class Steps(Protocol):
    """A decoder that scores the next token of several hypotheses at once.

    Hypotheses of one utterance are neighbours, and all utterances have equally many.
    """

    def advance(self, tokens: Tensor) -> Tensor:
        """Take the next tokens, (hypotheses, tokens), int64; return the logits after.

        The result is (hypotheses, vocabulary), float32; it may be changed in place.
        Only the first call takes more than one token.
        """

    def select(self, hypotheses: Sequence[int]) -> None:
        """Go on with these hypotheses only, in this order; one may come twice."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What a text may be."""

    end: int
    "The token that ends a text."
    longest: int
    "The most tokens of a text, its end included."
    never: Tensor
    "Tokens that are never written: (tokens,), int64, on the model's device."
    not_first: Tensor
    "Tokens that no text begins with: likewise."
    length_penalty: float = 1.0
    "How a beam search weighs the length of a text; see `beam_search`."
    processors: Sequence[Callable[[Tensor, Tensor], Tensor]] = ()
    "Logits processors of transformers that the model's generation config asks for."

    def scores(self, logits: Tensor, tokens: Tensor, *, first: bool) -> Tensor:
        """Return logits (rows, vocabulary) in which forbidden tokens are -inf.

        tokens: (rows, tokens), all that stands before, the prefix included; only
        processors look at it.
        """
        logits.index_fill_(1, self.never, -torch.inf)
        if first:
            logits.index_fill_(1, self.not_first, -torch.inf)
        for processor in self.processors:
            logits = processor(tokens, logits)
        return logits


class Written(NamedTuple):
    """A text, as tokens."""

    tokens: tuple[int, ...]
    "Without the prefix and the end."
    log_probability: float
    "The sum over the tokens, and over the end if there is one."
    scored: int
    "The number of tokens in that sum."


def write(
    steps: Steps,
    prefix: Tensor,
    rules: Rules,
    temperature: float = 0.0,
    generators: Sequence[torch.Generator] = (),
) -> list[Written]:
    """Write one text for each row, the most likely token at a time.

    prefix: (rows, tokens), int64, what the texts go on from. temperature: above 0,
    tokens are drawn from the softmax of the scores divided by it, each row by its own
    of `generators`, which are on the CPU; probabilities are still those of the scores.
    """
    tokens = [[] for _ in prefix]  # type: list[list[int]]
    sums, scored = [0.0] * len(prefix), [0] * len(prefix)
    alive = list(range(len(prefix)))
    before = prefix
    following = prefix
    for position in range(rules.longest):
        logits = rules.scores(steps.advance(following), before, first=not position)
        if temperature:
            shares = functional.softmax(logits / temperature, dim=-1).cpu()
            drawn = [
                torch.multinomial(share, 1, generator=generators[row])
                for share, row in zip(shares, alive, strict=True)
            ]
            best = torch.cat(drawn).to(logits.device)
        else:
            best = logits.argmax(-1)
        chosen = logits.gather(1, best[:, None])[:, 0] - logits.logsumexp(-1)
        ids, gains = best.tolist(), chosen.tolist()  # waits for a GPU
        on = []
        for place, row in enumerate(alive):
            sums[row] += gains[place]
            scored[row] += 1
            if ids[place] != rules.end:
                tokens[row].append(ids[place])
                on.append(place)
        if not on:
            break
        if len(on) < len(alive):
            steps.select(on)
            alive = [alive[place] for place in on]
            before, best = before[on], best[on]
        following = best[:, None]
        if rules.processors:
            before = torch.cat([before, following], 1)
    return [
        Written(tuple(each), total, count)
        for each, total, count in zip(tokens, sums, scored, strict=True)
    ]


@dataclass
class _Beam:
    """The hypotheses of one utterance."""

    tokens: list[tuple[int, ...]]
    sums: list[float]
    ended: list[Written] = field(default_factory=list)


def beam_search(
    steps: Steps, prefix: Tensor, rules: Rules, beam_size: int
) -> list[Written]:
    """Write one text for each row: the best of those that a beam search finds.

    An utterance is done when `beam_size` of its hypotheses have ended. The best has the
    greatest log-probability, divided by its number of tokens to the power of
    `Rules.length_penalty` (Radford et al. 2022, "Robust speech recognition via
    large-scale weak supervision", section 4.5; Wu et al. 2016).
    """
    beams = [_Beam([()], [0.0]) for _ in prefix]
    alive = list(range(len(prefix)))
    before, following = prefix, prefix
    for position in range(rules.longest):
        logits = rules.scores(steps.advance(following), before, first=not position)
        log_probs = logits.log_softmax(-1)
        # Of each hypothesis, one more than go on, since one of them may be the end.
        gains, ids = (each.tolist() for each in log_probs.topk(beam_size + 1))
        rows: list[int] = []  # hypotheses that go on, by their place before this step
        added: list[int] = []
        on: list[int] = []
        place = 0
        for utterance in alive:
            beam = beams[utterance]
            count = len(beam.tokens)
            candidates = sorted(
                (
                    (beam.sums[i] + gain, i, token)
                    for i in range(count)
                    for gain, token in zip(
                        gains[place + i], ids[place + i], strict=True
                    )
                ),
                key=lambda candidate: -candidate[0],
            )
            going: list[tuple[float, int, int]] = []
            for total, i, token in candidates:
                if token != rules.end:
                    going.append((total, i, token))
                elif len(beam.ended) < beam_size:
                    text = beam.tokens[i]
                    beam.ended.append(Written(text, total, len(text) + 1))
                if len(going) == beam_size:
                    break
            beam.tokens = [(*beam.tokens[i], token) for _, i, token in going]
            beam.sums = [total for total, _, _ in going]
            if len(beam.ended) < beam_size:
                on.append(utterance)
                rows += [place + i for _, i, _ in going]
                added += [token for _, _, token in going]
            place += count
        alive = on
        if not alive:
            break
        steps.select(rows)
        following = torch.tensor(added, device=prefix.device)[:, None]
        if rules.processors:
            before = torch.cat([before[rows], following], 1)
    return [_best(beam, rules.length_penalty) for beam in beams]


def _best(beam: _Beam, length_penalty: float) -> Written:
    # Hypotheses without an end count only if there is no other: they are cut off.
    unended = zip(beam.tokens, beam.sums, strict=True)
    found = beam.ended or [Written(text, total, len(text)) for text, total in unended]
    return max(
        found,
        key=lambda each: each.log_probability / max(1, each.scored) ** length_penalty,
    )
