"""Pure functions on tensors: one folder an operation, the literal definition beside the fast form."""
