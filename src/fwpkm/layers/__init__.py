"""Layers as functions of tokens and state: `y, state = layer(x, state, mask)`."""
