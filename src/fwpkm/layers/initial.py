"""What fresh fast weights start from: buffers or trained parameters that are never narrowed below float32."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def add_initial(module: nn.Module, name: str, shape: tuple[int, ...], *, learned: bool) -> None:
    """Give `module` an uninitialised tensor: a parameter where it is learned, else a saved buffer."""
    initial = torch.empty(shape, dtype=torch.promote_types(torch.get_default_dtype(), torch.float32))
    if learned:
        module.register_parameter(name, nn.Parameter(initial))
    else:
        module.register_buffer(name, initial)


@torch.no_grad()
def set_initial(module: nn.Module, name: str, value: Tensor) -> None:
    """Give an initial tensor new contents.

    A buffer is exchanged, so that states which still show the old one keep their numbers. A parameter is
    edited in place, as optimizers do.
    """
    old = getattr(module, name)
    if isinstance(old, nn.Parameter):
        old.copy_(value)
    else:
        setattr(module, name, value.to(old, copy=True))


def keeping_exact(
    fn: Callable[[Tensor], Tensor], tensors: Iterable[Tensor | None]
) -> Callable[[Tensor], Tensor]:
    """Return what to call in `nn.Module._apply` instead of `fn`, so that `tensors` stay float32 or wider.

    Steps of fast weights get lost in half precision, and rounding at one conversion could not be undone.
    """
    exact = {id(x) for x in tensors if x is not None}
    exact |= {id(x.grad) for x in tensors if x is not None and x.grad is not None}

    def apply(x: Tensor) -> Tensor:
        new = fn(x)
        if id(x) in exact and new.dtype in (torch.float16, torch.bfloat16):
            wide = torch.promote_types(x.dtype, torch.float32)
            return x.to(device=new.device, dtype=wide)
        return new

    return apply
