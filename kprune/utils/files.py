"""Files that appear whole or not at all."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

from kprune.utils.checks import check_flag, check_path
from kprune.utils.errors import ExportError


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
    check_path("path", path)
    check_flag("overwrite", overwrite)
    path = pathlib.Path(path)
    _need_parent(path)
    if path.exists() and (path.is_dir() or not overwrite):
        kind = "a folder" if path.is_dir() else "a file"
        raise ExportError(
            f"{path} is already there, as {kind}.", "A new file name.", "Choose another, or remove it first."
        )
    try:
        handle, name = tempfile.mkstemp(prefix=".", suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise _refused(path, error) from error
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        write(temporary)
        temporary.chmod(0o666 & ~current_umask())
        os.replace(temporary, path)
    except OSError as error:
        raise _refused(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_folder_by_rename(path, write: Callable[[pathlib.Path], None], mark: str, overwrite: bool = True):
    """Lets `write` fill a temporary folder beside `path`, then renames it.

    Args:
      path: where the folder shall appear.
      write: called with the temporary folder, which is there and empty.
      mark: a file by which a folder of this kind is known; no other folder is ever replaced.
      overwrite: whether an existing folder of this kind may be replaced.

    Returns:
      `path` as a `pathlib.Path`.

    Raises:
      ExportError: `path` exists and may not be replaced, its parent is missing, or the disk refuses the write.
    """
    check_path("path", path)
    path = pathlib.Path(path)
    _need_parent(path)
    if path.exists() and not (overwrite and (path / mark).is_file()):
        what = f", without the {mark} of such a folder" if overwrite else ""
        raise ExportError(f"{path} is already there{what}.", "A new folder.", "Choose another, or remove it first.")
    try:
        work = pathlib.Path(tempfile.mkdtemp(prefix=".", dir=path.parent))
    except OSError as error:
        raise _refused(path, error) from error
    new, old = work / "new", work / "old"
    try:
        new.mkdir()
        write(new)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        if old.exists() and not path.exists():
            os.replace(old, path)
        raise _refused(path, error) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return path


def check_place(path, mark: str | None = None):
    """Refuses a place where nothing can be written, before work is done that would be lost.

    Args:
      path: of a file that shall be written, or replaced.
      mark: a file by which a folder that may be replaced is known.

    Raises:
      ExportError: the folder is missing or not writable, or a folder is where the file shall be.
    """
    check_path("path", path)
    path = pathlib.Path(path)
    _need_parent(path)
    if path.is_dir() and not (mark and (path / mark).is_file()):
        raise ExportError(f"{path} is a folder.", "A new file name.", "Choose another, or remove it first.")
    if not os.access(path.parent, os.W_OK):
        raise _refused(path, PermissionError(f"{path.parent} is not writable"))


def _refused(path: pathlib.Path, error: OSError) -> ExportError:
    return ExportError(
        f"{path} could not be written: {error}.", "A writable disk with room.", "Free room, or choose another folder."
    )


def _need_parent(path: pathlib.Path) -> None:
    if not path.parent.is_dir():
        raise ExportError(
            f"The folder {path.parent} of {path.name} does not exist.", "An existing folder.", "Create it first."
        )


def current_umask() -> int:
    """The permissions that new files of this process lack; mkstemp gives fewer."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
