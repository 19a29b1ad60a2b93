"""What every form of addressing agrees on."""

from typing import Literal

ScoreKind = Literal["idw", "dot"]
"""How a query half is compared with a sub-key: inverse distance weighting, or a dot product."""

IDW_EPS = 1e-3
ENTROPY_EPS = 1e-8
"""Keeps log p finite for sub-keys that nobody reads (authors' release)."""
