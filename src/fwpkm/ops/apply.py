"""Autograd functions at the price of their forward, where nothing is differentiated."""

from typing import Any

import torch
from torch.autograd import forward_ad


def apply(function: type[torch.autograd.Function], *args: Any) -> Any:
    """Apply an autograd function; under `no_grad` only call its forward, which takes no context.

    `Function.apply` inspects the forward's signature each time, which costs a decoded token more than the work itself.
    What it does not support (forward-mode gradients) still goes to it, and raises.
    """
    if torch.is_grad_enabled() or forward_ad._current_level >= 0:
        return function.apply(*args)
    return function.forward(*args)
