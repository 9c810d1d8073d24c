"""The loss of transducers: the log-probabilities of arcs in, that of the text out.

A text is written along a path through a lattice: node (t, u) is at frame t with u
tokens written. From it one kind of arc writes the next token and the other writes a
blank; both move on by a duration. Every path that ends with a blank at the last frame
reads as the text, and the loss is the negative log-probability of all paths together.
Without durations a token moves on by no frame and a blank by one (Graves 2012, section
2.4); with them each arc has as many versions as there are durations (Xu et al. 2023,
section 3.2).

Arcs lead from one anti-diagonal, t + u, to later ones only. So all nodes of an
anti-diagonal, of all utterances, are computed together. The backward pass is the
posterior probability of each arc, by the same recursion from the other end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from thanosql.speech.recognizers.precision import sent

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Scores that are held at a time: nodes times tokens. A batch of 16 utterances of 15 s,
# of 60 tokens out of 8,000 each, has a hundred times as many.
MOST_SCORES = 2**24


@dataclass(frozen=True)
class Arcs:
    """The log-probabilities of a batch's arcs, by the node that they lead from.

    Each is (versions, diagonals, batch, tokens + 1): version i moves on by the i-th of
    the durations, and -inf is no arc. Node (t, u) is at diagonal t + u and token u.
    """

    tokens: Tensor
    blanks: Tensor
    token_durations: tuple[int, ...]
    blank_durations: tuple[int, ...]


def arcs(
    joint: Callable[[Tensor, Tensor], Tensor],
    frames: Sequence[Tensor],
    outputs: Tensor,
    targets: Sequence[Sequence[int]],
    blank: int,
    vocabulary: int,
    durations: Sequence[int] | None = None,
) -> tuple[Arcs, Tensor]:
    """Return the arcs of a batch, and the share of nodes that speak: a scalar.

    A node speaks if the token that is next there is likelier than a blank.

    joint: of (nodes, width) frames and as many outputs of the prediction network it
    makes the nodes' scores, (nodes, tokens, then durations if there are any). frames:
    (frames, width) of each utterance. outputs: (batch, tokens + 1, width). vocabulary:
    the number of tokens, blank included. durations: those that the model scores.

    Where the scores of all nodes are many, they are computed a part at a time, and once
    more in the backward pass, so that they are never all in memory.
    """
    device = outputs.device
    lengths = [len(each) for each in frames]
    most, diagonals = outputs.shape[1], 0
    whose, whens, nexts, places, lasts = [], [], [], [], []
    begin = 0
    for i, (length, target) in enumerate(zip(lengths, targets, strict=True)):
        count = len(target) + 1
        frame = torch.arange(length)[:, None].expand(-1, count)
        token = torch.arange(count).expand(length, -1)
        whens.append((begin + frame).flatten())
        whose.append((i * most + token).flatten())
        nexts.append(torch.tensor([*target, blank]).expand(length, -1).flatten())
        places.append((((frame + token) * len(targets) + i) * most + token).flatten())
        lasts.append((length - frame).flatten())
        begin += length
        diagonals = max(diagonals, length + count)
    when, who, following, place, left = (
        sent(torch.cat(each), device) for each in (whens, whose, nexts, places, lasts)
    )
    heard, said = torch.cat(list(frames)), outputs.flatten(0, 1)

    def scored(part: slice) -> tuple[Tensor, Tensor, Tensor]:
        scores = joint(heard[when[part]], said[who[part]])
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        log_probs = scores[:, :vocabulary].log_softmax(-1)
        token = log_probs.gather(1, following[part, None])[:, 0]
        return token, log_probs[:, blank], scores[:, vocabulary:].log_softmax(-1)

    size = max(1, MOST_SCORES // vocabulary)
    if len(when) <= size:
        token, pause, moves = scored(slice(0, len(when)))
    else:
        parts = [
            checkpoint(scored, slice(first, first + size), use_reentrant=False)
            for first in range(0, len(when), size)
        ]
        token, pause, moves = (torch.cat(each) for each in zip(*parts, strict=True))
    speaks = ((token > pause) & (following != blank)).float().mean()
    token_durations: tuple[int, ...] = (0,)
    blank_durations: tuple[int, ...] = (1,)
    tokens, blanks = token[:, None], pause[:, None]
    if durations is not None:
        token_durations = tuple(durations)
        blank_durations = tuple(each for each in durations if each)
        kept = [i for i, each in enumerate(durations) if each]
        tokens, blanks = tokens + moves, blanks + moves[:, kept]
    # No token is left to write at the end, and none may move beyond the last frame.
    moved = torch.tensor(token_durations, device=device)
    is_none = (following == blank)[:, None] | (moved >= left[:, None])
    tokens = tokens.masked_fill(is_none, -torch.inf)
    shape = diagonals, len(targets), most

    def laid_out(values: Tensor) -> Tensor:
        nothing = values.new_full(
            (values.shape[1], diagonals * len(targets) * most), -torch.inf
        )
        return nothing.index_copy(1, place, values.T).view(-1, *shape)

    return (
        Arcs(laid_out(tokens), laid_out(blanks), token_durations, blank_durations),
        speaks.detach(),
    )


def log_likelihood(
    lattice: Arcs, lengths: Sequence[int], targets: Sequence[Sequence[int]]
) -> Tensor:
    """Return the log-probability of each utterance's text: (batch,).

    lengths: the number of frames of each. It is -inf where no path reads as the text.
    """
    ends = torch.tensor([[n, len(t)] for n, t in zip(lengths, targets, strict=True)])
    result: Tensor = _LogLikelihood.apply(
        lattice.tokens,
        lattice.blanks,
        lattice.token_durations,
        lattice.blank_durations,
        sent(ends, lattice.tokens.device),
    )
    return result


class _LogLikelihood(torch.autograd.Function):
    """The forward-backward algorithm over a batch's lattices.

    tokens, blanks: as of `Arcs`. ends: (batch, 2), the node (frames, tokens) at which
    each utterance's paths end.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        blanks: Tensor,
        token_durations: tuple[int, ...],
        blank_durations: tuple[int, ...],
        ends: Tensor,
    ) -> Tensor:
        _, diagonals, batch, most = tokens.shape
        # Room before the first diagonal, from which no path comes.
        room = 1 + max(*token_durations, *blank_durations)
        before = tokens.new_full((room + diagonals, batch, most), -torch.inf)
        before[room, :, 0] = 0.0
        # For each version of an arc, the diagonal that it comes from.
        by_token = room - 1 - _column(token_durations, tokens)
        by_blank = room - _column(blank_durations, blanks)
        tokens_in, blanks_in = (_roomy(each, room) for each in (tokens, blanks))
        versions = [
            torch.arange(len(each), device=tokens.device) for each in (tokens, blanks)
        ]
        for diagonal in range(1, diagonals):
            froms = by_token + diagonal, by_blank + diagonal
            said = before[froms[0]] + tokens_in[versions[0], froms[0]]
            paused = before[froms[1]] + blanks_in[versions[1], froms[1]]
            # A token is one more than before.
            said = functional.pad(said[..., :-1], (1, 0), value=-torch.inf)
            before[room + diagonal] = torch.cat([said, paused]).logsumexp(0)
        before = before[room:]
        rows = torch.arange(batch, device=tokens.device)
        total = before[ends.sum(1), rows, ends[:, 1]]
        ctx.save_for_backward(tokens, blanks, before, ends, total)
        ctx.durations = token_durations, blank_durations
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tokens, blanks, before, ends, total = ctx.saved_tensors
        token_durations, blank_durations = ctx.durations
        _, diagonals, batch, most = tokens.shape
        room = 1 + max(*token_durations, *blank_durations)
        # What is written after a node; room after the last one, at which no path ends.
        after = tokens.new_full((diagonals + room, batch, most + 1), -torch.inf)
        rows = torch.arange(batch, device=tokens.device)
        to_token = 1 + _column(token_durations, tokens)
        to_blank = _column(blank_durations, blanks)
        final = ends.sum(1)
        after[final, rows, ends[:, 1]] = 0.0
        for diagonal in range(diagonals - 2, -1, -1):
            said = tokens[:, diagonal] + after[to_token + diagonal, :, 1:]
            paused = blanks[:, diagonal] + after[to_blank + diagonal, :, :-1]
            found = torch.cat([said, paused]).logsumexp(0)
            # An utterance's last node stands already; nothing leads on from it.
            after[diagonal, :, :-1] = torch.maximum(after[diagonal, :, :-1], found)
        at_most = torch.arange(diagonals, device=tokens.device)
        so_far = before - total[:, None]
        to_tokens = so_far + tokens + after[to_token[:, None] + at_most, :, 1:]
        to_blanks = so_far + blanks + after[to_blank[:, None] + at_most, :, :-1]
        weight = gradient[:, None]
        return to_tokens.exp_() * weight, to_blanks.exp_() * weight, None, None, None


def _column(durations: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(durations, device=like.device)


def _roomy(values: Tensor, room: int) -> Tensor:
    """Return (versions, room + diagonals, batch, tokens), -inf in the room."""
    return functional.pad(values, (0, 0, 0, 0, room, 0), value=-torch.inf)
