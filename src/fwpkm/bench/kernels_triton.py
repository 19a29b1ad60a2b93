"""What the Triton kernels take of a GPU, without one: registers, spills and shared memory, by cross-compilation.

python -m fwpkm.bench.kernels_triton ARCH:DTYPE[:TOPK:HEADS] ...   prints a JSON row for each kernel at the paper's
layer size, for example 90:bf16; without arguments for 80 and 90 in fp32 and bf16.
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from fwpkm.ops.addressing.find_triton import find_slots_kernel
from fwpkm.ops.addressing.step_triton import pool_kernel, slopes_kernel, step_kernel, towards_kernel
from fwpkm.ops.addressing.triton import find_blocks, step_block
from fwpkm.ops.answer.kernels_triton import answer_kernel, put_token_kernel, rate_kernel, read_cells_kernel
from fwpkm.ops.answer.triton import answer_blocks, rate_blocks
from fwpkm.ops.launch_triton import column_block, pair_block
from fwpkm.ops.memory_scan.kernels_triton import undo_kernel, unread_kernel
from fwpkm.ops.rows_triton import RUN_BLOCK, add_pairs_kernel, add_runs_kernel, read_rows_kernel
from fwpkm.ops.units.kernels_triton import (
    gated_units_kernel,
    mix_back_kernel,
    mix_kernel,
    normalise_back_kernel,
    normalise_kernel,
    units_back_kernel,
    units_kernel,
)
from fwpkm.ops.units.triton import row_blocks

_INTEGERS = {"ids", "rows", "row", "order", "slot", "place", "i", "cells"}
"""Arguments that point to int64; other pointers are to floats."""
_SIZES = {
    "J",
    "D",
    "M",
    "H",
    "n",
    "d",
    "T",
    "S",
    "N",
    "first",
    "last",
    "num_tokens",
    "size_y",
    "size_target",
    "STEPS",
    "capacity",
    "DQ",
    "DV",
}


_OF_UNITS = tuple(f"{name}_{i}" for name in ("w", "out", "g") for i in range(3))
_MULTIPLES = ("D", "d", "keys_stride", "squares_stride", "index_stride")
"""Numbers that are multiples of 16."""
_ACTIVATIONS = ("q", "target", "w", "c", "a", "dq", "x", "dx", "vector", *_OF_UNITS)
_NARROW = {"bf16": _ACTIVATIONS, "bf16rows": (*_ACTIVATIONS, "base", "rows")}
"""What is in bfloat16."""
_MANY_ROWS = 1 << 15
"""Enough to fill the blocks of norms."""
_D, _N, _HALF = 512, 512, 256
"""The paper's layer: width of rows, sub-keys per half, and their width."""
Variant = tuple[Any, dict[str, Any], int]
"""A kernel, its constants, its warps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelCost:
    """What one compiled kernel takes."""

    kernel: str
    arch: int
    dtype: str
    topk: int
    heads: int
    registers: int
    """Per thread."""
    spilled_bytes: int
    """Stored to local memory, per thread."""
    shared_bytes: int
    warps: int


def kernel_costs(arch: int, *, dtype: str = "fp32", topk: int = 8, heads: int = 1) -> Iterator[KernelCost]:
    """Compile every kernel for compute capability `arch` (80, 90) and yield what it takes.

    Args:
        arch: Ten times the compute capability.
        dtype: Of the floats that the kernels are given: "fp32", "bf16" (activations; tables stay fp32), "bf16rows"
            (tables in bf16 too: of answering kernels alone, as no other is given such) or "fp64".
        topk: Slots per head.
        heads: H. Kernels of scan and norms, to which slots and heads are one, are yielded for 8 slots of 1 head alone.

    Raises:
        RuntimeError: If a kernel does not compile.
    """
    acc = tl.float64 if dtype == "fp64" else tl.float32
    variants = [*_of_answers(acc, topk, heads)]
    if dtype != "bf16rows":
        variants = [*_of_addressing(acc, topk, heads), *variants]
        if (topk, heads) == (8, 1):
            variants = [*_of_scan(acc), *_of_units(acc), *variants]
    for kernel, constants, warps in variants:
        registers, spilled, shared = _compile(kernel, constants, warps, arch, dtype)
        yield KernelCost(
            kernel=_name(kernel, constants), arch=arch, dtype=dtype, topk=topk, heads=heads, registers=registers,
            spilled_bytes=spilled, shared_bytes=shared, warps=warps,
        )  # fmt: skip


def _of_scan(acc: Any) -> Iterator[Variant]:
    BD = column_block(_D)
    scan = {"ACC": acc, "BJ": pair_block(8, BD), "BD": BD}
    yield read_rows_kernel, scan, 4
    yield add_pairs_kernel, {**scan, "SIGN": -1}, 4
    yield add_runs_kernel, {"ACC": acc, "BD": BD, "BP": RUN_BLOCK, "SIGN": -1}, 4
    for atomic in (True, False):
        yield undo_kernel, {**scan, "ATOMIC": atomic}, 4
        yield unread_kernel, {**scan, "ATOMIC": atomic}, 4


def _of_units(acc: Any) -> Iterator[Variant]:
    blocks = row_blocks(_MANY_ROWS, _D)
    warps = blocks.pop("num_warps")
    how = {**blocks, "ACC": acc}
    for kernel in (units_kernel, units_back_kernel):
        for count, dots in ((2, True), (3, False)):
            yield kernel, {**how, "COUNT": count, "DOTS": dots, "EPS": 1e-6, "SHIFT": 1.0}, warps
    gate = {"NUM_LOGITS": 1, "BIAS": False, "EPS": 1e-6}
    yield gated_units_kernel, {**how, **gate, "BM": 1}, warps
    for kernel in (normalise_kernel, normalise_back_kernel):
        yield kernel, {**how, "ZSCORE": True}, warps
    for kernel in (mix_kernel, mix_back_kernel):
        yield kernel, {**how, "GATED": True, "EPS": 1e-6}, warps


def _of_addressing(acc: Any, topk: int, heads: int) -> Iterator[Variant]:
    blocks = find_blocks(_N, _HALF, topk)
    warps = blocks.pop("num_warps")
    head = {"H": 1} if heads == 1 else {}  # Triton makes a constant of every size that is 1
    for precision in ("ieee",) if acc is tl.float64 else ("ieee", "tf32x3"):
        yield (
            find_slots_kernel,
            {**blocks, **head, "K": topk, "IDW": True, "ACC": acc, "PRECISION": precision},
            warps,
        )
    kinds = {"K": topk, "KP": triton.next_power_of_2(topk), **head, "ACC": acc}
    yield pool_kernel, kinds, 1
    wide = {**kinds, "IDW": True, "BD": step_block(topk, _HALF)}
    yield step_kernel, wide, 4
    yield towards_kernel, wide, 4
    yield slopes_kernel, {**wide, "STEP": True}, 4


def _of_answers(acc: Any, topk: int, heads: int) -> Iterator[Variant]:
    own = {"IDW": True, "ACC": acc, "H": heads, "T": 1}
    rating, blocks = rate_blocks(_N, _HALF), answer_blocks(_N, _HALF, _D, heads, topk)
    warps = rating.pop("num_warps"), blocks.pop("num_warps")
    yield rate_kernel, {**own, **rating}, warps[0]
    yield answer_kernel, {**own, **blocks, "KIND": 0, "HAS_BASE": True, "K": topk}, warps[1]
    if (topk, heads) == (8, 1):
        how = {"HAS_GATE": True, "HAS_MASK": False, "BW": 512}
        yield put_token_kernel, how, 4
    BD = column_block(_D)
    how = {"ACC": acc, "BJ": pair_block(topk * heads, BD), "BD": BD, "HAS_BASE": True}
    yield read_cells_kernel, how, 4


def _compile(
    kernel: Any, constants: dict[str, Any], warps: int, arch: int, dtype: str
) -> tuple[int, int, int]:
    """Return registers, spilled bytes and bytes of shared memory."""
    signature, attributes = {}, {}
    for place, name in enumerate(kernel.arg_names):
        signature[name] = _kind_of(name, constants, dtype)
        if name not in constants and (signature[name][0] == "*" or name in _MULTIPLES):
            attributes[(place,)] = [["tt.divisibility", 16]]
    source = ASTSource(
        kernel, signature, {(kernel.arg_names.index(k),): v for k, v in constants.items()}, attributes
    )
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"num_warps": warps})
    return *_resources(built.asm["ptx"], arch), built.metadata.shared


def _kind_of(name: str, constants: dict[str, Any], dtype: str) -> str:
    if name in constants:
        return "constexpr"
    if name in _SIZES:
        return "i32"
    if name.endswith("_stride"):
        return "i64"
    if name == "index":
        return "*i32"
    if name in _INTEGERS:
        return "*i64"
    narrow = _NARROW.get(dtype, ())
    return f"*{dtype}" if dtype not in _NARROW else "*bf16" if name in narrow else "*fp32"


def _name(kernel: Any, constants: dict[str, Any]) -> str:
    marks = [str(constants[x]) for x in ("PRECISION",) if x in constants]
    marks += [f"{constants['COUNT']}{' and dots' * constants['DOTS']}" for x in ("COUNT",) if x in constants]
    marks += ["atomic" if constants[x] else "ordered" for x in ("ATOMIC",) if x in constants]
    return " ".join([kernel.fn.__name__.removesuffix("_kernel"), *marks])


def _resources(ptx: str, arch: int) -> tuple[int, int]:
    """Return registers and spilled bytes per thread, as the assembler that ships with Triton reports them."""
    ptxas = get_ptxas(arch).path
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "kernel.ptx"
        text.write_text(ptx)
        wanted = re.search(r"\.target (sm_\w+)", ptx)
        target = wanted[1] if wanted else f"sm_{arch}"
        command = [
            ptxas,
            "-v",
            f"--gpu-name={target}",
            str(text),
            "-o",
            str(Path(folder) / "kernel.cubin"),
        ]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"bench.kernels_triton: ptxas refused a kernel: {done.stdout}{done.stderr}"[:2000])
    said = done.stderr
    used, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert used is not None, f"ptxas said nothing of registers: {said}"
    return int(used[1]), int(spilled[1]) if spilled else 0


def main(arguments: list[str]) -> None:
    """Print a row for each kernel."""
    for wanted in arguments or ["80:fp32", "80:bf16", "90:fp32", "90:bf16"]:
        arch, dtype, *sizes = wanted.split(":")
        topk, heads = map(int, sizes or (8, 1))
        for cost in kernel_costs(int(arch), dtype=dtype, topk=topk, heads=heads):
            print(json.dumps(asdict(cost)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
