"""The gated delta rule: a matrix per head that forgets, and corrects what its keys already hold."""

from fwpkm.ops.delta_rule.dispatch import Backend, gated_delta_rule, resolve_backend
from fwpkm.ops.delta_rule.torch import DecaySum

__all__ = ["Backend", "DecaySum", "gated_delta_rule", "resolve_backend"]
