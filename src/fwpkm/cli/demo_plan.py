"""What `fwpkm demo` does unless told otherwise."""

from dataclasses import dataclass

from fwpkm.layers.checks import below_one, not_positive, refuse


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What the demonstration does."""

    minutes: float = 10.0
    """How long all of it may take; lengths for which there is no time are left out, and said to be."""
    recipe: str = "small/swa_fwpkm"
    """The model with a memory."""
    twin: str = "small/swa"
    """The model beside it, trained for as many steps on the same batches."""
    lengths: tuple[int, ...] = (512, 2048, 8192, 32768, 131072)
    """Tokens of the documents that are asked about."""
    depths: tuple[float, ...] = (0.1, 0.4, 0.7, 1.0)
    """Where the needle stands."""
    samples: int = 4
    """Documents of each length and depth."""
    seed: int = 0
    """Draws models and documents."""

    def __post_init__(self) -> None:
        problems = not_positive(self, "minutes") + below_one(self, "samples")
        if self.recipe == self.twin:
            problems.append(f"twin must be another recipe than recipe, got {self.twin!r} for both")
        refuse("DemoPlan", problems)
