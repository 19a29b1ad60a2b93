"""Product-key addressing: which slots a query reads, how strongly, and how the sub-keys spread out."""

from fwpkm.ops.addressing.constants import ScoreKind
from fwpkm.ops.addressing.operation import address, key_squares, product_key_topk
from fwpkm.ops.addressing.scan import address_windows, can_scan

__all__ = ["ScoreKind", "address", "address_windows", "can_scan", "key_squares", "product_key_topk"]
