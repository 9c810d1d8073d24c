"""The loss of transducers against all paths, other implementations, and differences."""

from __future__ import annotations

import math

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pad_sequence

from thanosql.speech.recognizers import transducer_loss
from thanosql.speech.recognizers.transducer_loss import arcs, log_likelihood

VOCABULARY, WIDTH, BLANK = 6, 4, 2
DURATIONS = st.sampled_from([None, (0, 1, 2, 3, 4), (0, 1), (1, 2), (3, 1, 0)])
TEXTS = st.lists(
    st.lists(st.sampled_from([0, 1, 3, 4, 5]), max_size=4), min_size=1, max_size=3
)


class Batch:
    """Frames, outputs of a prediction network, and a joint network, all random."""

    def __init__(self, lengths, targets, durations, seed=0):
        torch.manual_seed(seed)
        self.targets, self.durations = targets, durations
        self.joint_layer = torch.nn.Linear(
            WIDTH, VOCABULARY + len(durations or ())
        ).double()
        self.frames = [
            torch.randn(n, WIDTH, dtype=torch.double, requires_grad=True)
            for n in lengths
        ]
        self.outputs = torch.randn(
            len(targets),
            max(map(len, targets)) + 1,
            WIDTH,
            dtype=torch.double,
            requires_grad=True,
        )

    def joint(self, heard, said):
        return self.joint_layer(torch.tanh(heard + said))

    def arcs(self):
        return arcs(
            self.joint,
            self.frames,
            self.outputs,
            self.targets,
            BLANK,
            VOCABULARY,
            self.durations,
        )

    def log_likelihood(self):
        lattice, _ = self.arcs()
        lengths = [len(each) for each in self.frames]
        return log_likelihood(lattice, lengths, self.targets)

    def scores(self):
        """Return the scores of all nodes: (batch, frames, tokens + 1, outputs)."""
        frames = pad_sequence(self.frames, batch_first=True)
        return self.joint(frames[:, :, None], self.outputs[:, None])

    def gradients(self, values):
        weights = torch.linspace(0.5, 1.5, len(values), dtype=values.dtype)
        parameters = [*self.frames, self.outputs, self.joint_layer.weight]
        return torch.autograd.grad((values * weights).sum(), parameters)


def over_all_paths(scores, target, length, durations):
    """Return the log-probability of a text, path by path."""
    tokens = scores[..., :VOCABULARY].log_softmax(-1)
    moves = scores[..., VOCABULARY:].log_softmax(-1)

    def from_node(t, u):
        if t == length:
            return [0.0] if u == len(target) else []
        if t > length:
            return []
        found = []
        for i, duration in enumerate(durations or (1,)):
            if duration:
                paused = tokens[t, u, BLANK] + (moves[t, u, i] if durations else 0)
                ahead = from_node(t + duration, u)
                if t + duration < length or u == len(target):
                    found += [float(paused) + each for each in ahead]
        if u < len(target):
            for i, duration in enumerate(durations or (0,)):
                if t + duration < length:  # the last arc is a blank
                    said = tokens[t, u, target[u]] + (
                        moves[t, u, i] if durations else 0
                    )
                    ahead = from_node(t + duration, u + 1)
                    found += [float(said) + each for each in ahead]
        return found

    paths = from_node(0, 0)
    if not paths:
        return -math.inf
    return float(torch.tensor(paths, dtype=torch.double).logsumexp(0))


@given(texts=TEXTS, durations=DURATIONS, seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_sum_over_all_paths(texts, durations, seed, data):
    lengths = [data.draw(st.integers(1, 5)) for _ in texts]
    batch = Batch(lengths, texts, durations, seed)
    found = batch.log_likelihood().tolist()
    scores = batch.scores().detach()
    for value, row, text, length in zip(found, scores, texts, lengths, strict=True):
        assert value == pytest.approx(
            over_all_paths(row, text, length, durations), abs=1e-9
        )


@pytest.mark.parametrize("durations", [None, (0, 1, 2, 3, 4), (1, 2)])
def test_its_gradients_are_those_of_differences(durations):
    batch = Batch([5, 3], [[0, 1], [4]], durations)
    tensors = *batch.frames, batch.outputs

    def value(*tensors):
        *batch.frames, batch.outputs = tensors
        return batch.log_likelihood()

    assert torch.autograd.gradcheck(value, tensors)


@given(texts=TEXTS, seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=20, deadline=None)
def test_without_durations_it_is_torchaudios(texts, seed, data):
    lengths = [data.draw(st.integers(1, 12)) for _ in texts]
    batch = Batch(lengths, texts, None, seed)
    ours = -batch.log_likelihood()
    targets = pad_sequence(
        [torch.tensor(text, dtype=torch.int32) for text in texts], batch_first=True
    )
    theirs = torchaudio.functional.rnnt_loss(
        batch.scores().float(),
        targets,
        torch.tensor(lengths, dtype=torch.int32),
        torch.tensor([*map(len, texts)], dtype=torch.int32),
        BLANK,
        reduction="none",
    )
    torch.testing.assert_close(ours.float(), theirs, atol=1e-4, rtol=1e-4)
    for one, other in zip(batch.gradients(ours), batch.gradients(theirs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@given(texts=TEXTS, seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=20, deadline=None)
def test_with_durations_it_is_transformers(texts, seed, data):
    loss_tdt = pytest.importorskip(
        "transformers.loss.loss_tdt", reason="this transformers has no TDT"
    )
    durations = (0, 1, 2, 3, 4)
    lengths = [data.draw(st.integers(1, 12)) for _ in texts]
    batch = Batch(lengths, texts, durations, seed)
    ours = -batch.log_likelihood()
    scores = batch.scores()
    theirs = loss_tdt.tdt_loss(
        scores[..., :VOCABULARY],
        scores[..., VOCABULARY:],
        pad_sequence([torch.tensor(t, dtype=torch.long) for t in texts], True),
        torch.tensor(lengths),
        torch.tensor([*map(len, texts)]),
        BLANK,
        durations,
        reduction="none",
    )
    torch.testing.assert_close(ours.float(), theirs, atol=1e-4, rtol=1e-4)
    for one, other in zip(batch.gradients(ours), batch.gradients(theirs), strict=True):
        torch.testing.assert_close(one.float(), other.float(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("durations", [None, (0, 1, 2)])
def test_scores_computed_in_parts_change_nothing(durations, monkeypatch):
    batch = Batch([9, 4, 7], [[0, 1, 3], [], [4, 4]], durations)
    whole = batch.log_likelihood()
    expected = batch.gradients(whole)
    held = []

    def joint(heard, said):
        held.append(len(heard))
        return batch.joint_layer(torch.tanh(heard + said))

    monkeypatch.setattr(transducer_loss, "MOST_SCORES", 10 * VOCABULARY)
    batch.joint = joint
    parts = batch.log_likelihood()
    torch.testing.assert_close(parts, whole)
    for one, other in zip(batch.gradients(parts), expected, strict=True):
        torch.testing.assert_close(one, other)
    nodes = 9 * 4 + 4 * 1 + 7 * 3
    assert max(held) == 10
    assert sum(held) == 2 * nodes  # forward, and once more backward


def test_it_is_infinite_where_no_path_reads_as_the_text():
    batch = Batch([2, 6], [[0, 1, 3], [0, 1, 3]], (1, 2))
    found = batch.log_likelihood()
    assert found[0] == -math.inf
    assert found[1].isfinite()


def test_the_share_of_nodes_that_speak_is_counted():
    batch = Batch([3, 2], [[0], [1, 4]], None)
    with torch.no_grad():
        batch.joint_layer.weight.zero_()
        batch.joint_layer.bias.copy_(torch.tensor([1.0, -1, 0, -1, 2, -1]))
    _, speaking = batch.arcs()
    # Of 3 * 2 + 2 * 3 nodes those speak at which 0 is next, or 4.
    assert float(speaking) == pytest.approx((3 + 2) / 12)
