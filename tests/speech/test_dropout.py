from __future__ import annotations

import pytest
import torch
from torch import nn

from thanosql.speech.training.dropout import cheap_dropout


def dropped(model, inputs, seed=0):
    torch.manual_seed(seed)
    with cheap_dropout(model):
        return model(inputs)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_it_drops_its_share_and_keeps_the_mean(p):
    outputs = dropped(nn.Sequential(nn.Dropout(p)), torch.ones(1001, 999))
    share = (outputs == 0).float().mean().item()
    assert share == pytest.approx(p, abs=2e-3)
    assert outputs.mean().item() == pytest.approx(float(p < 1), abs=0.01)
    assert len(outputs.unique()) == (1 if p in (0.0, 1.0) else 2)


def test_neighbours_are_dropped_independently():
    outputs = dropped(nn.Sequential(nn.Dropout(0.5)), torch.ones(1_000_000)) == 0
    for distance in (1, 2, 3, 4, 5, 16):
        both = (outputs[distance:] & outputs[:-distance]).float().mean().item()
        assert both == pytest.approx(0.25, abs=3e-3)


def test_gradients_go_where_values_went():
    inputs = torch.randn(50, 7, requires_grad=True)
    outputs = dropped(nn.Sequential(nn.Dropout(0.3)), inputs)
    outputs.sum().backward()
    assert torch.equal(inputs.grad == 0, outputs == 0)
    assert torch.allclose(inputs.grad * inputs, outputs)


def test_the_seed_decides_and_evaluation_drops_nothing():
    model, inputs = nn.Sequential(nn.Dropout(0.3)), torch.ones(100)
    first, again, other = (dropped(model, inputs, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(dropped(model.eval(), inputs), inputs)


def test_it_is_undone():
    model = nn.Sequential(nn.Dropout(0.5))
    dropped(model, torch.ones(10))
    assert "forward" not in vars(model[0])
    torch.manual_seed(3)
    ours = model(torch.ones(10))
    torch.manual_seed(3)
    assert torch.equal(ours, nn.functional.dropout(torch.ones(10), 0.5))
