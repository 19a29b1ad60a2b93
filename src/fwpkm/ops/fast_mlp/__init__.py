"""Small SwiGLU networks whose weights are fast: one per stream (and head), written by gradient steps."""

from fwpkm.ops.fast_mlp.options import FastMLPOptions
from fwpkm.ops.fast_mlp.torch import FastMLP, activate, answer, gradients, regression_step

__all__ = ["FastMLP", "FastMLPOptions", "activate", "answer", "gradients", "regression_step"]
