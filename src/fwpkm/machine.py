"""What a figure was measured on."""

import platform
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

import fwpkm
from fwpkm.ops.backend import name_backend


def describe_machine() -> dict[str, str]:
    """Name device, threads, versions, commit and date."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name()
    return {
        "device": device,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "backend": name_backend("cuda" if torch.cuda.is_available() else "cpu"),
        "python": platform.python_version(),
        "fwpkm": fwpkm.__version__,
        "commit": _commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def _commit() -> str:
    """Return the source's commit, with a + where the tree differs from it; "unknown" outside a checkout."""
    root = Path(__file__).parent
    try:
        head = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=root, capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip()
