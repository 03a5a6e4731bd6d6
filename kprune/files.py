"""Files that appear whole or not at all."""

import os
import pathlib
import tempfile
from collections.abc import Callable

from kprune.errors import ExportError


def write_by_rename(path, write: Callable[[pathlib.Path], None], overwrite: bool = True) -> pathlib.Path:
    """Lets `write` fill a temporary file beside `path`, then renames it, so that no reader ever sees half a file.

    Args:
      path: where the file shall appear.
      write: called with the temporary path, which has the suffix of `path`; it writes the file.
      overwrite: whether an existing file may be replaced.

    Returns:
      `path` as a `pathlib.Path`.

    Raises:
      ExportError: `path` exists and `overwrite` is false, its folder is missing, or the disk refuses the write.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise ExportError(
            f"The folder {path.parent} of {path.name} does not exist.", "An existing folder.", "Create it first."
        )
    if path.exists() and (path.is_dir() or not overwrite):
        kind = "a folder" if path.is_dir() else "a file"
        raise ExportError(
            f"{path} is already there, as {kind}.", "A new file name.", "Choose another, or remove it first."
        )
    handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~current_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise ExportError(
            f"{path} could not be written: {error}.",
            "A writable disk with room.",
            "Free room, or choose another folder.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def current_umask() -> int:
    """The permissions that new files of this process lack; mkstemp gives fewer."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
