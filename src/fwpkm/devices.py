"""Devices that this machine has."""

import torch


def check_device(what: str, device: torch.device | str) -> None:
    """Raise ValueError, which names what there is, unless tensors can be made on `device`."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        gpus = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
        others = ["mps"] if torch.backends.mps.is_available() else []
        known = ", ".join(["cpu", *gpus, *others])
        raise ValueError(
            f"{what}: this machine, with this PyTorch, has {known}; got {str(device)!r}"
        ) from error
