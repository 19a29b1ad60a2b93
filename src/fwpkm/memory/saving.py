"""States to and from memory files: the same numbers afterwards, under the same model only."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fwpkm.memory.codec import Decoder, Encoder
from fwpkm.memory.files import MemoryFile, read_file, write_file
from fwpkm.memory.fingerprint import Fingerprint
from fwpkm.memory.quantise import RowFormat
from fwpkm.memory.remote import RemoteTable
from fwpkm.state import State

S = TypeVar("S", bound=State)


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveReport:
    """What became of a save."""

    num_bytes: int
    """Size of the file."""
    num_rows: int
    """Written rows in it."""
    loss: float
    """Relative root-mean-square error of the rows as saved; 0 where they are exact."""


def save_state(
    path: str | os.PathLike[str],
    state: State,
    owner: nn.Module | Fingerprint,
    *,
    rows: RowFormat = "exact",
    extra: Mapping[str, Any] | None = None,
) -> SaveReport:
    """Save all that `state` knows: written rows, keys, waiting tokens, and what token mixers carry.

    Args:
        path: Replaced whole, once the new contents are on disk.
        state: Of a layer, or of a whole model.
        owner: The layer or model that made it, or its fingerprint; the file is good for this one alone.
        rows: Precision of the written rows. All else is exact.
        extra: Anything else to keep in the header, as JSON has it.
    """
    encoder = Encoder(rows=rows)
    tree = encoder.encode(state)
    fingerprint = owner if isinstance(owner, Fingerprint) else Fingerprint.of(owner)
    header = {
        "tree": tree,
        "fingerprint": fingerprint.to_header(),
        "rows": rows,
        "loss": encoder.loss,
        "extra": dict(extra or {}),
    }
    num_bytes = write_file(path, MemoryFile(header=header, tensors=encoder.tensors))
    return SaveReport(
        num_bytes=num_bytes, num_rows=sum(count for _, count in encoder.losses), loss=encoder.loss
    )


def load_state(
    path: str | os.PathLike[str],
    kind: type[S],
    module: nn.Module,
    *,
    classes: Sequence[type],
    fingerprint: Fingerprint | None = None,
) -> tuple[S, dict[str, Any]]:
    """Load what `save_state` saved; returns the state, and what was `extra`.

    Args:
        path: A memory file.
        kind: What to expect.
        module: The layer or model to go on with, on whose device the state will be.
        classes: All that the state may be made of.
        fingerprint: That of `module`, where it is known already.

    Raises:
        ValueError: If the file is damaged, holds something else, or was made by another model.
    """
    file = read_file(path)
    where = f"memory file {os.fspath(path)!r}"
    found = file.header["tree"].get("class")
    if found != kind.__name__:
        raise ValueError(f"{where}: must hold a {kind.__name__}, got {found}")
    fingerprint = Fingerprint.of(module) if fingerprint is None else fingerprint
    differences = Fingerprint.from_header(file.header["fingerprint"]).differences(fingerprint)
    if differences:
        raise ValueError(
            f"{where}: was made by another model; {'; '.join(differences)}. Load the model that made it, or read "
            "the document again with this one."
        )
    bases = {node["path"]: _base(module, node["path"]) for node in overlay_nodes(file.header["tree"])}
    state = decode_file(file, classes, bases=bases, device=next(module.parameters()).device)
    return state, dict(file.header["extra"])


def decode_file(
    file: MemoryFile,
    classes: Sequence[type],
    *,
    bases: Mapping[str, Tensor | RemoteTable | None],
    device: torch.device | str = "cpu",
) -> Any:
    """Build the state that a file holds, whoever made it; tables lie over `bases`, by their path, or over zeros.

    Raises:
        ValueError: If the file names what is not among `classes`, or does not describe a state.
    """
    decoder = Decoder(tensors=file.tensors, classes=classes, bases=bases, device=device)
    try:
        return decoder.decode(file.header["tree"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"memory file: its header describes no state: {error}") from error


def overlay_nodes(node: Any) -> Iterator[Mapping[str, Any]]:
    """Walk through the tables in a file's tree."""
    if isinstance(node, Mapping):
        if "overlay" in node:
            yield node["overlay"]
        for inner in node.values():
            yield from overlay_nodes(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from overlay_nodes(inner)


def _base(module: nn.Module, path: str) -> Tensor | RemoteTable | None:
    """Return the base table of the layer whose state has its table at `path`."""
    layer = module.get_submodule(path.removesuffix("table").removesuffix("."))
    base = layer.base_table
    assert base is None or isinstance(base, Tensor | RemoteTable)
    return base
