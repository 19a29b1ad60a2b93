"""States as a tree of plain values with named tensors beside it, and back; only named classes are ever built."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from fwpkm.memory.overlay import Overlay
from fwpkm.memory.quantise import PackedRows, RowFormat
from fwpkm.memory.remote import RemoteTable
from fwpkm.memory.store import RowStore
from fwpkm.memory.waiting import Waiting
from fwpkm.nested import unknown_name


@dataclass(slots=True, kw_only=True)
class Encoder:
    """Takes states apart."""

    rows: RowFormat = "exact"
    """How written rows are kept."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Everything found so far."""
    losses: list[tuple[float, int]] = field(default_factory=list)
    """Loss of each table's rows, and how many there are."""

    def encode(self, value: object, path: str = "") -> dict[str, Any]:
        """Return a tree of plain values; tensors go to `tensors` under the path of their field."""
        if isinstance(value, Tensor):
            self.tensors[path] = value.detach()
            return {"tensor": path}
        if isinstance(value, tuple):
            return {"tuple": [self.encode(item, _join(path, i)) for i, item in enumerate(value)]}
        if isinstance(value, Overlay):
            return {"overlay": self._overlay(value, path)}
        if isinstance(value, Waiting):
            return {"waiting": self._waiting(value, path)}
        if is_dataclass(value) and not isinstance(value, type):
            # A field that only speeds things up says so in its metadata, and gets its default when loaded.
            kept = [f.name for f in fields(value) if f.metadata.get("saved", True)]
            inner = {name: self.encode(getattr(value, name), _join(path, name)) for name in kept}
            return {"class": type(value).__name__, "fields": inner}
        assert value is None or isinstance(value, bool | int | float | str), f"{path}: {type(value)}"
        return {"value": value}

    @property
    def loss(self) -> float:
        """Root-mean-square loss over all tables, weighed by their rows."""
        total = sum(count for _, count in self.losses)
        return float((sum(loss**2 * count for loss, count in self.losses) / max(total, 1)) ** 0.5)

    def _overlay(self, table: Overlay, path: str) -> dict[str, Any]:
        cells, S, N = table.written(), *table.store.size
        rows = table.store.kept_rows(cells).detach()
        packed = PackedRows.of(rows, self.rows)
        self.losses.append((packed.loss(rows), len(rows)))
        self.tensors[f"{path}.cells"] = cells.to(torch.int32 if S * N < 2**31 else torch.int64)
        self.tensors[f"{path}.rows"] = packed.data
        if packed.scale is not None:
            self.tensors[f"{path}.scale"] = packed.scale
        return {"streams": S, "slots": N, "width": rows.shape[1], "dtype": _name(rows.dtype), "path": path}

    def _waiting(self, waiting: Waiting, path: str) -> dict[str, Any]:
        held = [waiting.packed[b, :count] for b, count in enumerate(waiting.counts)]
        self.tensors[path] = torch.cat(held).detach() if held else waiting.packed.flatten(0, 1)
        return {"counts": list(waiting.counts), "path": path}


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """Puts states together again."""

    tensors: Mapping[str, Tensor]
    classes: Sequence[type]
    """What may be built."""
    bases: Mapping[str, Tensor | RemoteTable | None]
    """Base table of each table, by its path."""
    device: torch.device | str = "cpu"

    def decode(self, node: Mapping[str, Any]) -> Any:
        """Build the value that `Encoder.encode` took apart.

        Raises:
            ValueError: If the tree names what may not be built, or does not fit its tensors.
        """
        (kind, content), *others = (item for item in node.items() if item[0] != "fields")
        if kind not in _KINDS or others:
            raise ValueError(f"memory file: {unknown_name('kind of value', kind, _KINDS)}")
        if kind == "value":
            return content
        if kind == "tensor":
            return self._tensor(content)
        if kind == "tuple":
            return tuple(self.decode(item) for item in content)
        if kind == "overlay":
            return self._overlay(**content)
        return self._waiting(**content) if kind == "waiting" else self._object(content, node["fields"])

    def _tensor(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise ValueError(f"memory file: {unknown_name('tensor', name, self.tensors)}")
        return self.tensors[name].to(self.device)

    def _object(self, name: str, content: Mapping[str, Any]) -> object:
        known = {cls.__name__: cls for cls in self.classes}
        if name not in known:
            raise ValueError(f"memory file: {unknown_name('class', name, known)}")
        return known[name](**{field: self.decode(node) for field, node in content.items()})

    def _overlay(self, *, streams: int, slots: int, width: int, dtype: str, path: str) -> Overlay:
        kind = _DTYPES[dtype]
        cells, data = self._tensor(f"{path}.cells").long(), self._tensor(f"{path}.rows")
        scale = self._tensor(f"{path}.scale") if f"{path}.scale" in self.tensors else None
        base = self.bases.get(path)
        _check_table(path, cells, data, base, (streams, slots, width))
        like = torch.empty(0, width, dtype=torch.promote_types(kind, torch.float32), device=self.device)
        store = RowStore.empty(base, streams, slots, like, row_dtype=kind)
        index = store.index.view(-1)
        index[cells] = torch.arange(len(cells), dtype=torch.int32, device=index.device)
        return Overlay(store.replaced(store.index, PackedRows(data=data, scale=scale).unpack(kind)))

    def _waiting(self, *, counts: list[int], path: str) -> Waiting:
        flat = self._tensor(path)
        if flat.ndim != 2 or sum(counts) != len(flat) or min(counts, default=0) < 0:
            raise ValueError(f"memory file: {path}: {len(flat)} waiting tokens for counts={counts}")
        packed = flat.new_zeros(len(counts), max(counts, default=0), flat.shape[1])
        for b, part in enumerate(flat.split(counts)):
            packed[b, : len(part)] = part
        return Waiting.of(packed, counts)


_KINDS = ("value", "tensor", "tuple", "overlay", "waiting", "class")
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _check_table(
    path: str, cells: Tensor, data: Tensor, base: Tensor | RemoteTable | None, sizes: tuple[int, int, int]
) -> None:
    """Raise ValueError unless rows, cells and base make a table: a stray cell would write out of bounds."""
    S, N, width = sizes
    problems = []
    if cells.ndim != 1 or data.shape != (len(cells), width):
        problems.append(f"{tuple(data.shape)} rows for {tuple(cells.shape)} cells of width {width}")
    elif len(cells) and not bool((cells[0] >= 0) & (cells[-1] < S * N) & (cells.diff() > 0).all()):
        problems.append(f"cells must rise from 0 to at most {S * N - 1}")
    if base is not None and tuple(base.shape) != (N, width):
        problems.append(f"the base table is {tuple(base.shape)} and must be {(N, width)}")
    if problems:
        raise ValueError(f"memory file: {path}: " + "; ".join(problems))
