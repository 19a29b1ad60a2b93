"""Which weights decay, which have sparse gradients, and one step for all of them."""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fwpkm.models.decoder import Decoder
from fwpkm.train.config import OptimizerConfig
from fwpkm.train.row_shards import norm_over_processes, share_of
from fwpkm.train.sharding import is_sharded, place_like, whole
from fwpkm.train.tables import trained_tables


class Optimizer:
    """AdamW for most weights, SparseAdam for tables with sparse gradients; clipped and stepped as one.

    Args:
        model: Whose weights are trained.
        config: Step size, decay and clipping.
    """

    def __init__(self, model: Decoder, config: OptimizerConfig) -> None:
        self.config = config
        self.names: dict[Tensor, str] = {p: name for name, p in model.named_parameters() if p.requires_grad}
        groups = _groups(model, config, self.names)
        betas = (config.beta1, config.beta2)
        sharded = any(is_sharded(p) for p in self.names)
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups["dense"], lr=config.lr, betas=betas, eps=config.eps, fused=not sharded)
        ]
        if groups["sparse"]:
            self.parts.append(
                torch.optim.SparseAdam(groups["sparse"], lr=config.lr, betas=betas, eps=config.eps)
            )

    def set_lr(self, factor: float) -> float:
        """Set the step size to a share of its height, and return it."""
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.config.lr * group["lr_factor"] * factor
        return self.config.lr * factor

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)
        for share in filter(None, map(share_of, self.names)):
            share.forget()

    def step(self) -> None:
        """Take a step along the present gradients."""
        for part in self.parts:
            part.step()

    @torch.no_grad()
    def clip(self) -> float:
        """Scale all gradients down to the largest norm allowed, and return their norm before."""
        for p in self.names:
            if p.grad is not None and p.grad.is_sparse:
                p.grad = p.grad.coalesce()
        grads: dict[bool, list[Tensor]] = {True: [], False: []}
        for p in self.names:
            if p.grad is not None:
                grads[share_of(p) is not None].append(_numbers(p.grad))
        kinds = [[g for g in grads[False] if is_sharded(g)], [g for g in grads[False] if not is_sharded(g)]]
        norms = [float(whole(nn.utils.get_total_norm(kind))) for kind in kinds if kind]
        norms += [norm_over_processes(grads[True])] if grads[True] else []
        kinds.append(grads[True])
        limit, norm = self.config.clip_norm, math.hypot(*norms)
        if limit is not None and norm > limit:
            for kind in filter(None, kinds):
                torch._foreach_mul_(kind, limit / (norm + 1e-6))
        return norm

    def tensors(self) -> Iterator[tuple[str, dict[Any, Any], str, Tensor]]:
        """Walk through all state: a name for it, the dictionary that holds it, its key there, the tensor."""
        for part in self.parts:
            for p, state in part.state.items():
                for key, x in state.items():
                    x = x if isinstance(x, Tensor) else torch.tensor(x)
                    yield f"{self.names[p]}/{key}", state, key, x

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take on the state that `tensors` walked through, by name.

        Raises:
            ValueError: If it is about other weights.
        """
        by_name = {name: (part, p) for part in self.parts for p, name in self.names.items() if _has(part, p)}
        unknown = {full.rsplit("/", 1)[0] for full in tensors} - set(by_name)
        if unknown:
            raise ValueError(f"Optimizer: the state is about other weights: {', '.join(sorted(unknown))}")
        for full, x in tensors.items():
            name, key = full.rsplit("/", 1)
            part, p = by_name[name]
            part.state[p][key] = _placed(part, key, x, p)


def _has(part: torch.optim.Optimizer, p: Tensor) -> bool:
    return any(p is own for group in part.param_groups for own in group["params"])


def _placed(part: torch.optim.Optimizer, key: str, x: Tensor, p: Tensor) -> Tensor | int:
    """Copy a piece of a weight's state to where the optimizer looks for it; a fused one has steps beside the weight."""
    if key != "step":
        return place_like(x, p)
    if isinstance(part, torch.optim.SparseAdam):
        return int(x)
    return x.to(p.device, copy=True) if part.defaults["fused"] else x.clone()


def _numbers(grad: Tensor) -> Tensor:
    """Return what a gradient's norm is made of; scaling it scales the gradient."""
    return grad._values() if grad.is_sparse else grad


def _groups(
    model: Decoder, config: OptimizerConfig, names: dict[Tensor, str]
) -> dict[str, list[dict[str, Any]]]:
    tables, sparse = ({id(p) for p in found} for found in trained_tables(model))
    embeddings = {id(model.embed.weight), id(model.head_weight)}
    factors = model.lr_factors()
    groups: dict[tuple[str, float, float, bool], list[Tensor]] = {}
    for p in names:
        table, embedding = id(p) in tables, id(p) in embeddings
        decays = p.ndim >= 2 and not table and (config.decay_embeddings or not embedding)
        kind = "sparse" if id(p) in sparse else "dense"
        factor = config.table_lr_factor if table else factors.get(p, 1.0)
        key = (kind, config.weight_decay if decays else 0.0, factor, is_sharded(p))
        groups.setdefault(key, []).append(p)
    made: dict[str, list[dict[str, Any]]] = {"dense": [], "sparse": []}
    for (kind, decay, factor, _), params in groups.items():
        extra = {"weight_decay": decay} if kind == "dense" else {}
        made[kind].append({"params": params, "lr_factor": factor, **extra})
    return made
