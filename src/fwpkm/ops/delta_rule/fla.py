"""The gated delta rule by flash-linear-attention's CUDA kernels. Imported only when they are to run."""

import torch
from fla.ops.gated_delta_rule import chunk_gated_delta_rule, fused_recurrent_gated_delta_rule
from jaxtyping import Float
from torch import Tensor


def gated_delta_rule_fla(
    q: Float[Tensor, "B T H Dk"],
    keys: Float[Tensor, "B T H Dk"],
    v: Float[Tensor, "B T H Dv"],
    g: Float[Tensor, "B T H"],
    beta: Float[Tensor, "B T H"],
    state: Float[Tensor, "B H Dk Dv"],
) -> tuple[Float[Tensor, "B T H Dv"], Float[Tensor, "B H Dk Dv"]]:
    """Run `gated_delta_rule_naive` on CUDA; arguments and results as in `gated_delta_rule_torch`."""
    # The recurrent kernel has no backward, the chunked one pads a single token to 64.
    single = q.shape[1] == 1 and not torch.is_grad_enabled()
    kernel = fused_recurrent_gated_delta_rule if single else chunk_gated_delta_rule
    out, final = kernel(
        q.contiguous(),
        keys.contiguous(),
        v.contiguous(),
        g=g.float().contiguous(),
        beta=beta.contiguous(),
        initial_state=state,
        output_final_state=True,
        use_qk_l2norm_in_kernel=True,
    )
    return out, final
