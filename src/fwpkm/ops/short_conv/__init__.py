"""A causal convolution of every channel by itself, over a few tokens: forward and backward in one pass each."""

from fwpkm.ops.short_conv.dispatch import short_conv

__all__ = ["short_conv"]
