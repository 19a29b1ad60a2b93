"""What defines a FwPKM layer."""

from dataclasses import dataclass, fields
from typing import Literal

from fwpkm.ops.addressing import ScoreKind
from fwpkm.ops.core.options import Border, CoreOptions, KeyLoss, WeightKind, WriteRule

QueryNorm = Literal["none", "l2", "zscore"]
ValueNorm = Literal["none", "l2", "zscore"]
TableScope = Literal["stream", "batch"]
InitialValues = Literal["random", "zero", "learned"]
TableDtype = Literal["float32", "bfloat16"]
InitialKeys = Literal["random", "learned"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FwPKMConfig:
    """What defines the layer. The defaults are the paper's sizes and arithmetic (arXiv:2601.00671v2)."""

    dim: int
    """D: width of the hidden states that come in and go out."""
    num_subkeys: int = 512
    """n: sub-keys per half; the table has n*n slots."""
    key_dim: int = 512
    """Dk: query width per head, both halves."""
    value_dim: int = 512
    """Dv: width of the table's rows."""
    num_heads: int = 1
    """H: heads that address the same table."""
    topk: int = 8
    """k: slots read per head."""
    chunk_size: int = 512
    """C: tokens that read the same fast weights before these are written."""
    lookahead: int = 1
    """l: token t writes the value of token t + l."""

    score: ScoreKind = "idw"
    """How a query half is compared with a sub-key: -log(1e-3 + |q - K|^2), or q . K."""
    temperature: float = 1.0
    """Divides the slot scores before they become weights; below 1 reads are sharper."""
    learn_temperature: bool = False
    """Train the temperature (its logarithm) with the slow weights."""
    key_std: float | None = None
    """Sub-keys start normal with this standard deviation; None: uniform in +-1/sqrt(Dk), as in the release."""
    weights: WeightKind = "softmax"
    """Turns a token's H*k scores into read weights."""
    query_norm: QueryNorm = "none"
    """Normalise each half of each query."""
    query_norm_over: Literal["head", "all"] = "head"
    """Normalise the halves of each head's query, or those of all heads' queries side by side (release)."""
    value_norm: ValueNorm = "zscore"
    """Normalise each value over Dv."""

    gate: bool = True
    """Mix what was retrieved with the token's own value by a learned gate; otherwise add the two."""
    gate_logits: int = 1
    """Logits whose mean is the gate's (paper: 1, release: 8; D4)."""
    gate_weighted_loss: bool = True
    """Weigh each token's memory loss by its gate, so that the gate also decides what is written."""

    write_rule: WriteRule = "paper"
    """Step size eta: "paper" is 1, "release" H*k*M/P (D1), "exact" lands on the target."""
    value_lr: float = 1.0
    """Factor on eta."""
    key_lr: float = 1.0
    """Step size of the sub-keys."""
    key_loss: KeyLoss = "entropy"
    """What moves the sub-keys: the addressing loss, the memory loss, both, or nothing."""
    addressing_weight: float = 1.0
    """Factor on the addressing loss."""
    border: Border = "moved"
    """Pairs across a chunk's end: "moved" waits for their targets, "dropped" never writes them (D2)."""
    weight_decay: float = 0.0
    """Inner weight decay (authors' release; slow, see CoreOptions.needs_definition)."""
    clip_gradients: bool = False
    """Clamp the inner gradients to [-1, 1] (authors' release; slow, likewise)."""

    table: TableScope = "stream"
    """One table per stream, or one shared by the batch (release; D3)."""
    initial_values: InitialValues = "random"
    """The base table: normal with deviation 1/sqrt(Dv), zeros, or a trained parameter that starts so."""
    initial_keys: InitialKeys = "random"
    """The sub-keys that streams start with: fixed, or trained."""
    table_dtype: TableDtype = "float32"
    """What base table and written rows are kept in; "bfloat16" takes half the room and rounds a row whenever it is
    put away. Arithmetic is in float32 either way."""
    sparse_grad: bool = False
    """Give a learned base table sparse gradients (torch.optim.SparseAdam takes them)."""
    table_seed: int = 0
    """Draws the random base table and sub-keys, so that no checkpoint needs to hold the table."""

    norm_eps: float = 1e-5
    """Added to the mean square in every RMSNorm."""
    bias: bool = True
    """Whether the projections have a bias."""
    check_inputs: bool = False
    """Refuse non-finite hidden states, at the cost of looking at them all."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least {low}, got {name}={getattr(self, name)}"
            for name, low in _AT_LEAST
            if getattr(self, name) < low
        ]
        problems += [
            f"{name} must be above 0, got {name}={value}"
            for name in ("temperature", "key_std", "norm_eps")
            if (value := getattr(self, name)) is not None and not value > 0
        ]
        problems += [
            f"{name} must be one of {', '.join(kinds)}, got {name}={getattr(self, name)!r}"
            for name, kinds in _ONE_OF
            if getattr(self, name) not in kinds
        ]
        if self.key_dim % 2:
            problems.append(
                f"key_dim must be even, its halves meet the two sets of sub-keys; got {self.key_dim}"
            )
        if self.topk > self.num_subkeys:
            problems.append(
                f"topk must not exceed num_subkeys, got topk={self.topk} and num_subkeys={self.num_subkeys}"
            )
        if self.value_norm == "zscore" and self.value_dim == 1:
            problems.append("value_norm='zscore' needs value_dim of at least 2, got value_dim=1; use 'none'")
        width = self.key_dim // 2 * (self.num_heads if self.query_norm_over == "all" else 1)
        if self.query_norm == "zscore" and width == 1:
            problems.append(
                f"query_norm='zscore' needs halves of width 2 at least, got width 1 from key_dim={self.key_dim}"
            )
        if self.sparse_grad and self.initial_values != "learned":
            problems.append("sparse_grad=True needs initial_values='learned'; nothing else has a gradient")
        if self.table_dtype == "bfloat16" and self.initial_values == "learned":
            problems.append(
                "table_dtype='bfloat16' would round an optimizer's small steps away; initial_values='learned' needs "
                "'float32'"
            )
        if problems:
            raise ValueError("FwPKMConfig: " + "; ".join(problems))
        self.core  # noqa: B018 - checks the fields that the arithmetic shares

    @property
    def num_slots(self) -> int:
        """N."""
        return self.num_subkeys**2

    @property
    def core(self) -> CoreOptions:
        """The part that defines the recurrence."""
        return CoreOptions(**{f.name: getattr(self, f.name) for f in fields(CoreOptions)})


_AT_LEAST = (
    ("dim", 1),
    ("num_subkeys", 1),
    ("key_dim", 2),
    ("value_dim", 1),
    ("num_heads", 1),
    ("gate_logits", 1),
)
_ONE_OF = (
    ("query_norm", ("none", "l2", "zscore")),
    ("value_norm", ("none", "l2", "zscore")),
    ("query_norm_over", ("head", "all")),
    ("table", ("stream", "batch")),
    ("initial_values", ("random", "zero", "learned")),
    ("initial_keys", ("random", "learned")),
    ("table_dtype", ("float32", "bfloat16")),
)
