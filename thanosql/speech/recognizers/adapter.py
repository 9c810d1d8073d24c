"""Adapters: a model in; the same with a small difference to its weights, trained, out.

Hu et al. 2021, "LoRA: low-rank adaptation of large language models": beside a matrix W
(outputs, inputs), which stays as it is, two of low rank are trained, A (rank, inputs)
and B (outputs, rank), and W + scale * B A takes the place of W. A is drawn as weights
are, B is zero, so that a training begins with the model as it is.

The sums are computed for whole matrices, once a step. The usual way is a module around
each layer that adds B (A x) to its output; but the families multiply by the weights of
several layers at once, or by a weight alone, and would not see such a module.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transformers import PreTrainedModel

ALPHA = 16.0
"""The scale times the rank; the same for all ranks.

So a learning rate that is good for one rank is good for the others, too (section 4.1).
"""

# The last names of the linear layers that attention begins and ends with, over all
# classes of transformers that are run here.
_PROJECTIONS = frozenset(
    {"q_proj", "k_proj", "v_proj", "out_proj", "o_proj"}
    | {"query_proj", "key_proj", "value_proj"}  # SEW-D
    | {"linear_q", "linear_k", "linear_v", "linear_out"}  # conformers
)


@dataclass(frozen=True, slots=True)
class Told:
    """What the training of an adapter was told of its texts, and the model keeps."""

    language: str | None = None
    task: str | None = None
    window: str | None = None


@dataclass(eq=False)
class Adapter:
    """Two small matrices for each of some layers of a model, which alone are trained.

    They are the layers' parameters `lora_A` and `lora_B`. The layers' own weights stay
    the model's parameters, under their names.
    """

    layers: Mapping[str, nn.Linear]
    "The adapted layers, by their names in the model."
    rank: int
    alpha: float
    told: Told = field(default_factory=Told)

    @property
    def scale(self) -> float:
        """What the product of the two matrices is multiplied by."""
        return self.alpha / self.rank

    @property
    def parameters(self) -> int:
        """The number of values in the matrices."""
        return sum(each.numel() for pair in self.matrices().values() for each in pair)

    def apply(self) -> None:
        """Compute with the sums from now on, as they are at present.

        With gradients, one backward pass may follow each call.
        """
        for layer in self.layers.values():
            # An attribute of the object comes before a parameter of the same name.
            vars(layer)["weight"] = torch.addmm(
                _own_weight(layer), _b(layer), _a(layer), alpha=self.scale
            )

    @torch.no_grad()
    def settle(self) -> None:
        """Do as `apply`, for a model that is used until it is trained further."""
        self.apply()

    def hold_norms(self, model: nn.Module) -> None:
        """Keep the batch norms of a model in training from taking other means."""
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.training = False

    def base_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the model's weights and buffers without the adapter."""
        return {
            name: tensor
            for name, tensor in model.state_dict().items()
            if not name.endswith((".lora_A", ".lora_B"))
        }

    def matrices(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return A and B of each layer, by its name."""
        return {
            name: (_a(layer).detach(), _b(layer).detach())
            for name, layer in self.layers.items()
        }


def projections(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers before and after every attention, by their names."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.split(".")[-1] in _PROJECTIONS
    }


def add(
    model: PreTrainedModel,
    names: Iterable[str],
    rank: int,
    alpha: float = ALPHA,
) -> Adapter:
    """Return a new adapter of these linear layers, and freeze all else of the model.

    A is drawn from torch's global generator.
    """
    model.requires_grad_(False)
    layers: dict[str, nn.Linear] = {}
    for name in names:
        layer: Any = model.get_submodule(name)
        weight = layer.weight
        layer.lora_A = nn.Parameter(weight.new_empty(rank, layer.in_features))
        layer.lora_B = nn.Parameter(weight.new_zeros(layer.out_features, rank))
        nn.init.kaiming_uniform_(layer.lora_A, a=math.sqrt(5))
        layers[name] = layer
    return Adapter(layers, rank, alpha)


@torch.no_grad()
def fold_in(
    model: nn.Module, matrices: Mapping[str, tuple[Tensor, Tensor]], scale: float
) -> None:
    """Give layers new weights: the sums. The old tensors stay as they are.

    matrices: A and B of each layer, by its name, on any device.
    """
    for name, (a, b) in matrices.items():
        layer: Any = model.get_submodule(name)
        weight = layer.weight
        total = torch.addmm(weight, b.to(weight), a.to(weight), alpha=scale)
        layer.weight = nn.Parameter(total, requires_grad=weight.requires_grad)


def sharing(model: PreTrainedModel) -> PreTrainedModel:
    """Return a copy of a model that has the very parameters and buffers of it."""
    shared: dict[int, Any] = {
        id(each): each for each in (*model.parameters(), *model.buffers())
    }
    return copy.deepcopy(model, shared)


def _own_weight(layer: nn.Linear) -> Tensor:
    weight = layer._parameters["weight"]
    assert weight is not None
    return weight


def _a(layer: Any) -> Tensor:
    a: Tensor = layer.lora_A
    return a


def _b(layer: Any) -> Tensor:
    b: Tensor = layer.lora_B
    return b
