"""Loaded models are shared, and loading one holds up nobody else."""

import threading
from types import SimpleNamespace

import pytest
import torch

from thanosql.speech import loading


@pytest.fixture
def opened(monkeypatch):
    """Return which models were opened; "slow" waits until it is let go."""
    names, let_go = [], threading.Event()

    def open_stored(stored):
        names.append(stored.sha256)
        if stored.sha256 == "slow":
            assert let_go.wait(10)
        if stored.sha256 == "broken":
            message = "cut short"
            raise OSError(message)
        return SimpleNamespace(model=torch.nn.Linear(1, 1))

    monkeypatch.setattr(loading, "open_stored", open_stored)
    yield SimpleNamespace(names=names, let_go=let_go)
    let_go.set()


def get(loaded, name, device="cpu"):
    stored = loading.StoredFiles(name, dict, dict)
    return loaded.get(stored, torch.device(device))


def test_a_model_that_loads_holds_up_nobody_who_wants_another(opened):
    loaded, found = loading._LoadedModels(), []
    threads = [
        threading.Thread(target=lambda: found.append(get(loaded, "slow")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert get(loaded, "quick") is get(loaded, "quick")
    opened.let_go.set()
    for thread in threads:
        thread.join()
    assert len({id(each) for each in found}) == 1
    assert sorted(opened.names) == ["quick", "slow"]


def test_a_model_that_could_not_be_opened_is_tried_again(opened):
    loaded = loading._LoadedModels()
    for _ in range(2):
        with pytest.raises(OSError, match="cut short"):
            get(loaded, "broken")
    assert opened.names == ["broken", "broken"]


def test_a_model_that_cannot_be_opened_puts_out_none_that_is_loaded(opened):
    loaded = loading._LoadedModels()
    kept = get(loaded, "a"), get(loaded, "b")
    with pytest.raises(OSError, match="cut short"):
        get(loaded, "broken")
    assert (get(loaded, "a"), get(loaded, "b")) == kept
    assert opened.names == ["a", "b", "broken"]


def test_only_the_models_used_last_stay_loaded(opened):
    loaded = loading._LoadedModels()
    for name in ("a", "b", "a", "c", "a", "b"):
        get(loaded, name)
    assert opened.names == ["a", "b", "c", "b"]


def test_a_model_on_two_devices_is_loaded_once_for_each(opened):
    loaded = loading._LoadedModels()
    on_cpu = get(loaded, "m")
    elsewhere = get(loaded, "m", "meta")
    assert get(loaded, "m") is on_cpu is not elsewhere
    assert [p.device.type for p in on_cpu.model.parameters()] == ["cpu"] * 2
    assert [p.device.type for p in elsewhere.model.parameters()] == ["meta"] * 2
    assert opened.names == ["m", "m"]
