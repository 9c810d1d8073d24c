"""Greedy search of transducers: frames in, tokens with their frames out.

Graves 2012, "Sequence transduction with recurrent neural networks": at each frame the
model writes tokens, each scored by the frame and by all tokens before it, until it
writes a blank, which moves on to the next frame. Xu et al. 2023, "Efficient sequence
transduction by jointly predicting tokens and durations" (TDT): with every token, and
every blank, the model also says by how many frames to move on, none included.

Many recordings are searched together, each at its own frame and in its own state. A
recording may come piece by piece: its state goes on from piece to piece.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.utils.rnn import pad_sequence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

# Frames after one another that are scored for the same tokens before them: where blanks
# move on by one frame, most of them follow a blank, and cost little beside the first.
_FRAMES_AHEAD = 8
_STEPS_UNSEEN = 32  # between two looks at a GPU, which is waited for then


def _looks_often(device: torch.device) -> bool:
    """Return whether Python may look at every result: a CPU's are there already."""
    return device.type == "cpu"


class Emission(NamedTuple):
    """A token that a transducer has written, and where."""

    token: int
    "Its id; never the blank."
    frame: int
    "At which it was written, counted from the recording's first."
    duration: int
    "The frames by which it moved on; 0 without durations."
    log_probability: float
    "Given the tokens before it, among all tokens and the blank."


@dataclass(eq=False)
class Lane:
    """A recording in the search."""

    waiting: list[Tensor] = field(default_factory=list)
    "Its frames that are not searched yet: (frames, width) each."
    begin: int = 0
    "The number of frames before those."
    skip: int = 0
    "How many of those a duration goes over."
    emissions: list[Emission] = field(default_factory=list)
    "What was written so far."
    state: tuple[Tensor, Tensor, Tensor] | None = None
    """After the tokens so far; None before the first frame.

    The prediction network's output (width,), and the hidden and the cell state of its
    LSTM, (layers, width) each.
    """


class GreedySearch:
    """Searches for the likeliest token at each step, with a model of transformers."""

    def __init__(self, model: Any) -> None:
        """Prepare. model: has a prediction network and a joint network, as Parakeet."""
        config = model.config
        self._model = model
        self._blank: int = config.blank_token_id
        self._tokens: int = config.vocab_size
        self._most: int = config.max_symbols_per_step
        durations = getattr(config, "durations", None)
        self._durations: list[int] | None = None if durations is None else [*durations]
        self._ahead = _FRAMES_AHEAD if durations is None else 1

    @torch.no_grad()
    def run(self, lanes: Sequence[Lane]) -> None:
        """Search all the frames that wait in the lanes.

        At most `max_symbols_per_step` tokens are written at one frame; then the search
        moves on, as if the last had been of one frame.
        """
        lanes = [lane for lane in lanes if lane.waiting]
        if not lanes:
            return
        pieces = [torch.cat(lane.waiting).float() for lane in lanes]
        device = pieces[0].device
        # In fp32 whatever the encoder was in: what is written decides what follows.
        with torch.autocast(device.type, enabled=False):
            self._start([lane for lane in lanes if lane.state is None], device)
            self._search(lanes, pieces)

    def _start(self, lanes: Sequence[Lane], device: torch.device) -> None:
        """Give each lane the state after a blank, with which every text begins."""
        if not lanes:
            return
        blank = torch.tensor([self._blank], device=device)
        output, hidden, cell = self._predicted(blank, None)
        for lane in lanes:
            lane.state = output[0], hidden[:, 0], cell[:, 0]

    def _search(self, lanes: Sequence[Lane], pieces: Sequence[Tensor]) -> None:
        device = pieces[0].device
        frames = pad_sequence(list(pieces), batch_first=True)
        lengths = torch.tensor([len(piece) for piece in pieces], device=device)
        positions = torch.tensor([lane.skip for lane in lanes], device=device)
        written = torch.zeros_like(positions)  # tokens at the present frame
        states = [lane.state for lane in lanes if lane.state is not None]
        outputs = torch.stack([output for output, _, _ in states])
        hidden = torch.stack([each for _, each, _ in states], 1)
        cells = torch.stack([each for _, _, each in states], 1)
        table = torch.tensor(self._durations or [], device=device)
        ahead = torch.arange(self._ahead, device=device)
        often = _looks_often(device)
        steps: list[tuple[Tensor, ...]] = []
        alive = (positions < lengths).nonzero()[:, 0]
        while len(alive):
            for _ in range(1 if often else _STEPS_UNSEEN):
                position, length = positions[alive], lengths[alive]
                places = position[:, None] + ahead
                heard = frames[
                    alive[:, None], places.clamp(max=frames.shape[1] - 1)
                ]  # (alive, frames ahead, width)
                scores = self._model.joint(
                    encoder_hidden_states=heard,
                    decoder_hidden_states=outputs[alive, None],
                )
                best = scores[..., : self._tokens].argmax(-1)
                # The first that is no blank, or else the last: blanks change no state.
                speaks = best != self._blank
                first = torch.where(
                    speaks.any(1), speaks.int().argmax(1), self._ahead - 1
                )
                rows = torch.arange(len(alive), device=device)
                token, score = best[rows, first], scores[rows, first]
                frame = position + first
                emits = (token != self._blank) & (frame < length)
                if self._durations is None:
                    duration = torch.zeros_like(frame)
                else:
                    duration = table[score[:, self._tokens :].argmax(1)]
                moved = torch.where(emits, duration, duration.clamp(min=1))
                count = torch.where(first > 0, 0, written[alive]) + 1
                count = torch.where(emits & (duration == 0), count, 0)
                is_full = count >= self._most
                # Beyond the end only a duration leads, never frames that do not exist.
                reached = torch.minimum(frame, length) + moved * (frame < length)
                positions[alive] = torch.where(
                    position < length, reached + is_full, position
                )
                written[alive] = torch.where(is_full, 0, count)
                gain = score[:, : self._tokens].log_softmax(-1)[rows, token]
                steps.append((alive, token, frame, duration, gain, emits))
                # The network is spared the lanes that wrote nothing.
                on = emits.nonzero()[:, 0] if often else rows
                if len(on):
                    lanes_on, keep = alive[on], emits[on]
                    new = self._predicted(
                        token[on], (hidden[:, lanes_on], cells[:, lanes_on])
                    )
                    outputs[lanes_on] = torch.where(
                        keep[:, None], new[0], outputs[lanes_on]
                    )
                    for kept, changed in ((hidden, new[1]), (cells, new[2])):
                        kept[:, lanes_on] = torch.where(
                            keep[:, None], changed, kept[:, lanes_on]
                        )
            alive = alive[positions[alive] < lengths[alive]]  # waits for a GPU
        for i, each in enumerate((positions - lengths).tolist()):
            lane = lanes[i]
            lane.skip = each
            lane.state = outputs[i], hidden[:, i], cells[:, i]
        self._collect(lanes, steps)
        for lane, piece in zip(lanes, pieces, strict=True):
            lane.begin += len(piece)
            lane.waiting.clear()

    def _collect(
        self, lanes: Sequence[Lane], steps: Sequence[tuple[Tensor, ...]]
    ) -> None:
        """Add to each lane what the steps have written in it, in order."""
        if not steps:
            return
        columns = [torch.cat(column) for column in zip(*steps, strict=True)]
        emits = columns.pop()
        for lane, token, frame, duration, gain in zip(
            *(column[emits].tolist() for column in columns), strict=True
        ):
            emission = Emission(token, lanes[lane].begin + frame, duration, gain)
            lanes[lane].emissions.append(emission)

    def _predicted(
        self, tokens: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the prediction network's output and state after one more token each.

        tokens: (lanes,); state: hidden and cell state, (layers, lanes, width) each.

        Cell by cell: on a CPU the LSTM itself packs its weights anew in each call,
        which takes four times as long as a step.
        """
        network = self._model.decoder
        output = network.embedding(tokens)
        if state is None:
            nothing = output.new_zeros(network.lstm.num_layers, *output.shape)
            state = nothing, nothing
        hidden, cells = [], []
        for weights, before in zip(
            network.lstm.all_weights, zip(*state, strict=True), strict=True
        ):
            output, cell = torch.lstm_cell(output, before, *weights)
            hidden.append(output)
            cells.append(cell)
        output = network.decoder_projector(output)
        return output, torch.stack(hidden), torch.stack(cells)
