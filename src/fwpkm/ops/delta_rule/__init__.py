"""The gated delta rule: a matrix per head that forgets, and corrects what its keys already hold."""

from fwpkm.ops.delta_rule.dispatch import Arithmetic, Backend, gated_delta_rule, resolve_backend

__all__ = ["Arithmetic", "Backend", "gated_delta_rule", "resolve_backend"]
