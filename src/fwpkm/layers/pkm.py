"""Product key memory: a huge table of slow weights in the place of a feed-forward layer."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from fwpkm.layers.checks import below_one, not_positive, refuse
from fwpkm.layers.norm import PlainRMSNorm, at_least_float32
from fwpkm.memory.remote import RemoteTable
from fwpkm.ops.addressing import product_key_topk
from fwpkm.ops.bag import weighted_bag

OutputKind = Literal["gated", "linear", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PKMConfig:
    """What defines the layer. The defaults are those of the paper's language models (arXiv:2601.00671v2)."""

    dim: int
    """D: width of the hidden states that come in and go out."""
    num_subkeys: int = 512
    """n: sub-keys per half; the table has n*n slots."""
    key_dim: int = 512
    """Dk: query width per head, both halves."""
    value_dim: int = 512
    """Dv: width of the table's rows."""
    num_heads: int = 4
    """H: heads that address the same table."""
    topk: int = 32
    """k: slots read per head."""
    query_bias: bool = True
    """Whether the query projection adds a bias."""
    query_norm: bool = True
    """Scale the queries of all heads together to a root mean square of 1, times a weight."""
    output: OutputKind = "gated"
    """What becomes of the table's answer: projected after a gate silu(W x) (arXiv:2412.09764v2), just
    projected, or handed out as it is."""
    sparse_grad: bool = False
    """Give the table sparse gradients (torch.optim.SparseAdam and SGD take them)."""
    norm_eps: float = 1e-6
    """Added to the queries' mean square."""

    def __post_init__(self) -> None:
        problems = below_one(self, "dim", "num_subkeys", "value_dim", "num_heads", "topk")
        problems += not_positive(self, "norm_eps")
        if self.key_dim < 2 or self.key_dim % 2:
            problems.append(f"key_dim must be even and at least 2, got key_dim={self.key_dim}")
        if self.topk > self.num_subkeys:
            problems.append(
                f"topk must not exceed num_subkeys, got topk={self.topk} and num_subkeys={self.num_subkeys}"
            )
        if self.output not in ("gated", "linear", "none"):
            problems.append(f"output must be gated, linear or none, got output={self.output!r}")
        if self.output == "none" and self.value_dim != self.dim:
            problems.append(
                f"output='none' needs value_dim equal to dim, got value_dim={self.value_dim} and dim={self.dim}"
            )
        refuse("PKMConfig", problems)

    @property
    def num_slots(self) -> int:
        """N."""
        return self.num_subkeys**2


class ProductKeyMemory(nn.Module):
    r"""Read a few rows of a large trained table, chosen by product keys  (arXiv:1907.05242v2, Sec. 3).

        q = RMSNorm(W_q x) ;  w = softmax over each head's k best slot scores  q_1 . K1_i + q_2 . K2_j
        y = W_v (sum_{heads, k} w V[slot] * silu(W_g x))

    Each token by itself; there is no state. Not to be confused with `FwPKM`, whose table is rewritten.

    >>> layer = ProductKeyMemory(PKMConfig(dim=32, num_subkeys=16, key_dim=16, num_heads=2, topk=4))
    >>> y = layer(torch.randn(2, 20, 32))
    """

    def __init__(self, config: PKMConfig) -> None:
        super().__init__()
        self.config = config
        D, H, n, Dv = config.dim, config.num_heads, config.num_subkeys, config.value_dim
        self.query_proj = nn.Linear(D, H * config.key_dim, bias=config.query_bias)
        self.query_norm = PlainRMSNorm(H * config.key_dim, eps=config.norm_eps) if config.query_norm else None
        self.keys = nn.Parameter(torch.empty(2, H, n, config.key_dim // 2))
        self.values = nn.Parameter(torch.empty(config.num_slots, Dv))
        self.remote_table: RemoteTable | None = None
        """Where the table is, if `values` is only this process's share of it."""
        self.value_proj = None if config.output == "none" else nn.Linear(Dv, D)
        self.gate_proj = nn.Linear(D, Dv) if config.output == "gated" else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all weights as the authors' release does; biases are zero."""
        config = self.config
        bound = config.key_dim**-0.5
        nn.init.uniform_(self.keys, -bound, bound)
        nn.init.normal_(self.values, std=config.value_dim**-0.5)
        nn.init.xavier_uniform_(self.query_proj.weight)
        if self.query_norm is not None:
            self.query_norm.reset_parameters()
        for proj in (self.value_proj, self.gate_proj):
            if proj is not None:
                nn.init.normal_(proj.weight, std=config.dim**-0.5)
        for proj in (self.query_proj, self.value_proj, self.gate_proj):
            if proj is not None and proj.bias is not None:
                nn.init.zeros_(proj.bias)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Look every token of `x` up; the dtype of `x` is kept.

        Raises:
            ValueError: If `x` is not `dim` wide.
        """
        if x.shape[-1] != self.config.dim:
            raise ValueError(
                f"ProductKeyMemory: x must be [..., dim={self.config.dim}], got x {tuple(x.shape)}"
            )
        w, slots = self.address(x)
        ids = slots.flatten(-2).flatten(0, -2)
        found = self._look_up(w.flatten(-2).flatten(0, -2).to(self.values.dtype), ids)
        found = found.view(*x.shape[:-1], found.shape[-1]).to(x.dtype)
        if self.gate_proj is not None:
            found = found * F.silu(self.gate_proj(x))
        return (found if self.value_proj is None else self.value_proj(found)).to(x.dtype)

    def _look_up(self, w: Tensor, ids: Tensor) -> Tensor:
        if self.remote_table is None:
            return weighted_bag(w, ids, self.values, sparse_grad=self.config.sparse_grad)
        distinct, place = ids.unique(return_inverse=True)
        return weighted_bag(w, place, self.remote_table.rows(distinct))

    def address(
        self, x: Float[Tensor, "*batch D"]
    ) -> tuple[Float[Tensor, "*batch H k"], Int[Tensor, "*batch H k"]]:
        """Return the read weights and slots of every token and head, best first; scored in float32 or wider."""
        config = self.config
        q = self.query_proj(x)
        q = q if self.query_norm is None else self.query_norm(q)
        with torch.autocast(x.device.type, enabled=False):
            q = at_least_float32(q).reshape(-1, config.num_heads, config.key_dim)
            score, slots = product_key_topk(q, at_least_float32(self.keys).to(q.dtype), config.topk, "dot")
            w = score.softmax(dim=-1)
        shape = (*x.shape[:-1], config.num_heads, config.topk)
        return w.view(shape), slots.view(shape)
