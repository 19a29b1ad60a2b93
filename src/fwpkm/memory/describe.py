"""What is in a memory file, and where two of them differ, without the model that made them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fwpkm.memory.files import MemoryFile
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.quantise import PackedRows
from fwpkm.memory.saving import overlay_nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFile:
    """One layer's written rows, as a file has them."""

    path: str
    num_streams: int
    num_slots: int
    cells: Int[Tensor, " P"]
    """Written cells (stream * num_slots + slot), rising."""
    rows: Float[Tensor, "P Dv"]

    @property
    def occupancy(self) -> float:
        """Share of all slots that were written."""
        return len(self.cells) / max(1, self.num_streams * self.num_slots)


def tables_of(file: MemoryFile) -> dict[str, TableFile]:
    """Return the tables of a file by the path of their layer's state."""
    tables = {}
    for node in overlay_nodes(file.header["tree"]):
        path = node["path"]
        packed = PackedRows(data=file.tensors[f"{path}.rows"], scale=file.tensors.get(f"{path}.scale"))
        tables[path] = TableFile(
            path=path,
            num_streams=node["streams"],
            num_slots=node["slots"],
            cells=file.tensors[f"{path}.cells"].long(),
            rows=packed.unpack(getattr(torch, node["dtype"])),
        )
    return tables


def describe(file: MemoryFile) -> dict[str, Any]:
    """Return what is worth knowing of a file, as plain values."""
    tables = tables_of(file).values()
    return {
        "kind": file.header["tree"].get("class"),
        "rows": file.header["rows"],
        "loss": file.header.get("loss"),
        "tensor_bytes": sum(x.numel() * x.element_size() for x in file.tensors.values()),
        "tokens_seen": _tokens_seen(file),
        "tables": [
            {
                "path": table.path,
                "streams": table.num_streams,
                "slots": table.num_slots,
                "width": table.rows.shape[1],
                "written": len(table.cells),
                "occupancy": table.occupancy,
            }
            for table in tables
        ],
        "extra": file.header.get("extra", {}),
    }


def compare(a: MemoryFile, b: MemoryFile) -> dict[str, Any]:
    """Say where two memories differ: model, rows that only one wrote, and rows that both wrote otherwise."""
    prints = [Fingerprint.from_header(file.header["fingerprint"]) for file in (a, b)]
    ours, theirs = tables_of(a), tables_of(b)
    return {
        "model": prints[0].differences(prints[1], this="the first file", that="the second"),
        "tokens_seen": [_tokens_seen(a), _tokens_seen(b)],
        "others": _other_tensors(a, b),
        "only_first": sorted(ours.keys() - theirs.keys()),
        "only_second": sorted(theirs.keys() - ours.keys()),
        "tables": [
            {"path": path, **_compare_tables(ours[path], theirs[path])} for path in ours if path in theirs
        ],
    }


def _other_tensors(a: MemoryFile, b: MemoryFile) -> list[str]:
    """Name the tensors besides tables that differ: sub-keys, waiting tokens, what token mixers carry."""
    rows = ("cells", "rows", "scale")
    names = {**a.tensors, **b.tensors}
    hashes = [file.header["tensors"] for file in (a, b)]
    return [n for n in names if n.split(".")[-1] not in rows and hashes[0].get(n) != hashes[1].get(n)]


def _compare_tables(a: TableFile, b: TableFile) -> dict[str, Any]:
    sizes = [(t.num_streams, t.num_slots, t.rows.shape[1]) for t in (a, b)]
    if sizes[0] != sizes[1]:
        return {"sizes": sizes}
    in_b = torch.isin(a.cells, b.cells)
    left, right = a.rows[in_b], b.rows[torch.isin(b.cells, a.cells)]
    changed = (left != right).any(-1)
    scale = left.double().square().sum().sqrt().clamp_min(1e-300)
    return {
        "only_first": int((~in_b).sum()),
        "only_second": len(b.cells) - int(in_b.sum()),
        "both": int(in_b.sum()),
        "changed": int(changed.sum()),
        "relative_difference": float((left.double() - right.double()).norm() / scale),
    }


def _tokens_seen(file: MemoryFile) -> list[int]:
    """Find the count of tokens of each stream, wherever the state keeps it."""
    node = _find(file.header["tree"], "tokens_seen")
    if node is None:
        return []
    if "tensor" in node:
        return file.tensors[node["tensor"]].tolist()
    return [item["value"] for item in node["tuple"]]


def _find(node: Any, name: str) -> Any:
    if isinstance(node, Mapping):
        if name in node:
            return node[name]
        node = list(node.values())
    found = (_find(item, name) for item in node) if isinstance(node, list) else ()
    return next((item for item in found if item is not None), None)
