"""Which weights are tables and sub-keys: they have a step size of their own, no decay, and stay whole."""

from torch import nn

from fwpkm.layers.fwpkm import FwPKM
from fwpkm.layers.pkm import ProductKeyMemory

_NAMES = ("keys", "values", "initial_keys", "initial_values")


def trained_tables(model: nn.Module) -> tuple[set[nn.Parameter], set[nn.Parameter]]:
    """Return all trained tables and sub-keys, and those of them that have sparse gradients."""
    tables, sparse = set(), set()
    for module in model.modules():
        if not isinstance(module, FwPKM | ProductKeyMemory):
            continue
        own = {name: p for name, p in module.named_parameters(recurse=False) if name in _NAMES}
        tables |= set(own.values())
        if module.config.sparse_grad:
            sparse |= {p for name, p in own.items() if name.endswith("values")}
    return tables, sparse
