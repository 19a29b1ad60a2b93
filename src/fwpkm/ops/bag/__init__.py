"""The weighted bag: for every token the weighted sum of a few rows of a large trained table."""

from fwpkm.ops.bag.torch import weighted_bag

__all__ = ["weighted_bag"]
