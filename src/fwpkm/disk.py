"""What goes wrong while a file is written, said with the file's name."""

import contextlib
import os
import re
from collections.abc import Iterator

from safetensors import SafetensorError


@contextlib.contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Give errors of a write the name of its file; those of a full disk come without one.

    Raises:
        OSError: What the system says about `path`, through safetensors too.
    """
    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise OSError(f"{os.fspath(path)}: this could not be written ({error})") from error
        code = int(number[1])
        raise OSError(code, os.strerror(code), os.fspath(path)) from error
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = os.fspath(path)
        raise
