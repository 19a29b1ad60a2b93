"""Tables whose rows are not all here: several processes may hold a share each."""

from abc import ABC, abstractmethod

from jaxtyping import Float, Int
from torch import Tensor


class RemoteTable(ABC):
    """A table [N, Dv] that hands out rows on request instead of lying in memory."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """N and Dv."""

    @abstractmethod
    def rows(self, slots: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Fetch the rows of distinct slots; differentiable in the table."""

    def repeated_rows(self, slots: Int[Tensor, " P"]) -> Float[Tensor, "P Dv"]:
        """Fetch the rows of slots that may come several times, each from afar but once."""
        distinct, place = slots.unique(return_inverse=True)
        return self.rows(distinct).index_select(0, place)
