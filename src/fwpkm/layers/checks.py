"""Config checks that several layers share: collect every problem, then refuse once."""

from collections.abc import Iterable


def below_one(config: object, *names: str) -> list[str]:
    """Return one message for each named field that is below 1; None means unset and passes."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"{n} must be at least 1, got {n}={v}" for n, v in values if v is not None and v < 1]


def not_positive(config: object, *names: str) -> list[str]:
    """Return one message for each named field that is not above 0; None means unset and passes."""
    values = ((name, getattr(config, name)) for name in names)
    return [f"{n} must be above 0, got {n}={v}" for n, v in values if v is not None and not v > 0]


def not_divided(config: object, whole: str, part: str) -> list[str]:
    """Return a message if field `part` does not divide field `whole`; values below 1 are others' business."""
    w, p = getattr(config, whole), getattr(config, part)
    if p >= 1 and w % p:
        return [f"{whole} must be a multiple of {part}, got {whole}={w} and {part}={p}"]
    return []


def refuse(where: str, problems: Iterable[str]) -> None:
    """Raise one ValueError that lists all problems, if there are any."""
    if text := "; ".join(problems):
        raise ValueError(f"{where}: {text}")
