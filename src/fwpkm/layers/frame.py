"""What surrounds a memory: queries, values and gates go in; what was retrieved is mixed and projected back."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook as has_any_global_hook

from fwpkm.layers.norm import RMSNorm, at_least_float32, scaled_units
from fwpkm.layers.padding import hide_padding
from fwpkm.ops import units
from fwpkm.ops.answer import TINY_VARIANCE, can_frame

VectorNorm = Literal["none", "l2", "zscore"]


class MemoryFrame(nn.Module):
    r"""The slow weights around a memory, as in FwPKM (arXiv:2601.00671v2, Sec. 3).

        q = W_q RMSNorm(x) ;  v = zscore(W_v RMSNorm(x)) ;  g = sigmoid(W_g RMSNorm(x))
        y = W_o RMSNorm(g v^ + (1 - g) v)

    Args:
        dim: D, width of the hidden states.
        query_dim: Width of the queries.
        value_dim: Dv.
        query_norm: Normalises each half of the queries: of each head's, of width `head_dim`, or of all
            heads' side by side.
        query_norm_over: Which of the two.
        value_norm: Normalises each value.
        head_dim: Width of one head's queries.
        gate_logits: Logits whose mean is the gate's; 0 is no gate, and v^ + v for the mixture.
        eps: Added to the mean square in every RMSNorm.
        bias: Whether the projections have a bias.
    """

    def __init__(
        self,
        *,
        dim: int,
        query_dim: int,
        head_dim: int,
        value_dim: int,
        query_norm: VectorNorm,
        query_norm_over: Literal["head", "all"] = "head",
        value_norm: VectorNorm,
        gate_logits: int,
        eps: float,
        bias: bool,
    ) -> None:
        super().__init__()
        self._head_dim, self._query_norm, self._value_norm = head_dim, query_norm, value_norm
        self._normed_width = (query_dim if query_norm_over == "all" else head_dim) // 2
        self.q_norm, self.q_proj = RMSNorm(dim, eps=eps), nn.Linear(dim, query_dim, bias=bias)
        self.v_norm, self.v_proj = RMSNorm(dim, eps=eps), nn.Linear(dim, value_dim, bias=bias)
        self.gated = gate_logits > 0
        if self.gated:
            self.gate_norm, self.gate_proj = RMSNorm(dim, eps=eps), nn.Linear(dim, gate_logits, bias=bias)
        self.out_norm = RMSNorm(value_dim, eps=eps)
        self.out_proj = nn.Linear(value_dim, dim, bias=bias)

    def reset_projections(self) -> None:
        """Draw the projections normal with deviation 1/sqrt(width of their input); biases and norms are zero."""
        gate = [self.gate_proj] if self.gated else []
        for norm in self.children():
            if isinstance(norm, RMSNorm):
                norm.reset_parameters()
        for module in (self.q_proj, self.v_proj, self.out_proj, *gate):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    @property
    def memory_dtype(self) -> torch.dtype:
        """Precision that the memory works in, whatever that of the hidden states."""
        raise NotImplementedError

    def project(
        self, x: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B T H Dk"], Float[Tensor, "B T Dv"], Float[Tensor, "B T"] | None]:
        """Return queries, values and gates (None without a gate) in the precision of the memory."""
        if can_frame(x, self.memory_dtype):
            return self._project_few(x)
        dtype = self.memory_dtype
        for_q, for_v, gate = self._enter(x)
        q = self.q_proj(for_q)
        if self._query_norm != "none":
            q = normalise(q.unflatten(-1, (-1, self._normed_width)), self._query_norm, dtype).flatten(-2)
        q = q.to(dtype).unflatten(-1, (-1, self._head_dim))
        v = normalise(self.v_proj(for_v), self._value_norm, dtype)
        return q, v, None if gate is None else gate.to(dtype)

    def _enter(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what queries and values are projected from, and the gate."""
        eps, weights = self.q_norm.eps, (self.q_norm.weight, self.v_norm.weight)
        if not self.gated:
            for_q, for_v = scaled_units(x, eps, *weights)
            return for_q, for_v, None
        norm, proj = self.gate_norm.weight, self.gate_proj
        if not self._gate_is_a_dot(x):
            for_q, for_v, for_gate = scaled_units(x, eps, *weights, norm)
            return for_q, for_v, proj(for_gate).to(self.memory_dtype).mean(-1).sigmoid()
        if units.can_gate(x):
            return units.gated_units(x, eps, norm, proj.weight, proj.bias, weights)
        vector = (1 + at_least_float32(norm)) * at_least_float32(proj.weight).mean(0)
        for_q, for_v, logits = units.scaled_units_and_dots(x, eps, vector, *weights)
        if proj.bias is not None:
            logits = logits + at_least_float32(proj.bias).mean()
        return for_q, for_v, logits.sigmoid()

    def _gate_is_a_dot(self, x: Tensor) -> bool:
        """Return whether the gate's logit is one product with each token, and nobody wants to see more of it."""
        if not self.gated or type(self.gate_proj) is not nn.Linear or _is_hooked(self.gate_proj):
            return False
        if torch.is_autocast_enabled(x.device.type):
            return False
        own = (self.q_norm.weight, self.v_norm.weight, self.gate_norm.weight, self.gate_proj.weight)
        return units.can_normalise(x, *own)

    def _project_few(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Do the same for a few tokens, whose time goes into the number of operations."""
        from fwpkm.ops.answer.frame import normalised
        from fwpkm.ops.answer.frame import scaled_units as scaled_few

        norms = [self.q_norm, self.v_norm] + ([self.gate_norm] if self.gated else [])
        for_q, for_v, *for_gate = scaled_few(x, self.q_norm.eps, *(norm.weight for norm in norms))
        q = self.q_proj(for_q)
        if self._query_norm != "none":
            q = normalised(q.unflatten(-1, (-1, self._normed_width)), self._query_norm).flatten(-2)
        q = q.unflatten(-1, (-1, self._head_dim))
        v = normalised(self.v_proj(for_v), self._value_norm)
        return q, v, self.gate_proj(for_gate[0]).mean(-1).sigmoid() if self.gated else None

    def fuse(
        self,
        v_hat: Float[Tensor, "B T Dv"],
        v: Float[Tensor, "B T Dv"],
        gate: Float[Tensor, "B T"] | None,
        like: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B T"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Mix what was retrieved with the tokens' own values and project it; zeros at padding, dtype of `like`."""
        hooked = _is_hooked(self.out_norm) or type(self.out_norm) is not RMSNorm
        if mask is None and not hooked and v.dtype == like.dtype and can_frame(v, self.memory_dtype):
            from fwpkm.ops.answer.frame import mixed_units

            return self.out_proj(mixed_units(v_hat, v, gate, self.out_norm.eps, self.out_norm.weight))
        fits = v.dtype == like.dtype or units.reads_narrow(v)
        if not hooked and fits and units.can_normalise(v, v_hat, gate, self.out_norm.weight):
            mixed = units.mixed_units(v_hat, v, gate, self.out_norm.eps, self.out_norm.weight, like.dtype)
            return hide_padding(self.out_proj(mixed), mask)
        mixed = v_hat + v if gate is None else v + gate[..., None] * (v_hat - v)
        return hide_padding(self.out_proj(self.out_norm(mixed.to(like.dtype))), mask)


def _is_hooked(module: nn.Module) -> bool:
    """Return whether somebody wants to know when the module is called, or has put a `forward` of theirs in it."""
    own = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    return any(own) or "forward" in vars(module) or bool(has_any_global_hook())


def normalise(
    x: Float[Tensor, "*B D"], kind: VectorNorm, dtype: torch.dtype | None = None
) -> Float[Tensor, "*B D"]:
    """Normalise the last dimension, in `dtype` if it is given: "l2" to length 1, "zscore" to mean 0 and deviation 1."""
    dtype = dtype or x.dtype
    if kind == "none":
        return x.to(dtype)
    x = x if units.reads_narrow(x) else x.to(dtype)
    if units.can_normalise(x):
        return units.normalised(x, kind, dtype)
    x = x.to(dtype)
    if kind == "l2":
        return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + 1e-6)
    # torch.var_mean would warn where there are no tokens.
    x = x - x.mean(dim=-1, keepdim=True)
    variance = x.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return x / (variance.clamp_min(TINY_VARIANCE).sqrt() + 1e-6)
