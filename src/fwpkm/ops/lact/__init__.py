"""Large-chunk test-time training: fast SwiGLU networks, one normalised update a chunk."""

from fwpkm.ops.lact.options import LaCTOptions
from fwpkm.ops.lact.torch import LaCTWeights, lact_step

__all__ = ["LaCTOptions", "LaCTWeights", "lact_step"]
