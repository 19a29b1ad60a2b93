"""Numbers of the definition that all forms share."""

NEAR_ZERO = 1e-6
"""What z-scores add to the deviation, and l2 to the squared length."""

KINDS = {"l2": 1, "zscore": 2}
ZSCORE = KINDS["zscore"]
