"""What a figure was measured on."""

import os
import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

import fwpkm
from fwpkm.ops.backend import name_backend

COMMIT_VARIABLE = "FWPKM_COMMIT"
"""Names the commit where the sources were copied without their repository."""
_RESULTS = (":(top,exclude)benchmarks/results", ":(top,exclude)results")
"""What measurements themselves write into; it does not change what is measured."""


def describe_machine(device: torch.device | str | None = None, backend: str | None = None) -> dict[str, str]:
    """Name device, threads, versions, commit and date.

    Args:
        device: What was measured on; None is a GPU where there is one.
        backend: What was measured, if not what "auto" takes on that device.
    """
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    return {
        "device": torch.cuda.get_device_name(where) if where.type == "cuda" else _cpu_name(),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "backend": backend or name_backend(where),
        "python": platform.python_version(),
        "fwpkm": fwpkm.__version__,
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def is_clean(commit: str) -> bool:
    """Return whether a `commit` of `describe_machine` says exactly what was run."""
    return commit != "unknown" and not commit.endswith("+")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str:
    """Return the source's commit, with a + where the tree differs from it in anything but results.

    Outside a checkout it is what FWPKM_COMMIT says, or "unknown".
    """
    try:
        head = _git("describe", "--always", "--exclude=*")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":(top)", *_RESULTS)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get(COMMIT_VARIABLE) or "unknown"
    return f"{head}+" if changed else head


def _git(*arguments: str) -> str:
    command = ["git", *arguments]
    root = Path(__file__).parent
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip()
