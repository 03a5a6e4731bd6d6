"""The files of a search that exports and times one network after the other."""

import functools
import pathlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from kprune.deploy.export.saved_model import MARK
from kprune.utils.files import write_by_rename, write_folder_by_rename


@dataclass(frozen=True)
class TrialFiles:
    """Writes the files of a search.

    Attributes:
      export: see `prune_to_latency`.
      folder: where all are kept till the end.
      output: where the chosen one goes, or None.
    """

    export: Callable
    folder: pathlib.Path
    output: object

    def write(self, model, name: str) -> pathlib.Path:
        suffix = ".tflite" if self.output is None else pathlib.Path(self.output).suffix
        path = self.folder / f"{name}{suffix}"
        self.export(model, path)
        return path

    def publish(self, path: pathlib.Path) -> pathlib.Path | None:
        """Puts a file, or a folder, where the user wants it."""
        if self.output is None:
            return None
        if path.is_dir():
            copy = functools.partial(shutil.copytree, path, dirs_exist_ok=True)
            return write_folder_by_rename(self.output, copy, MARK)
        return write_by_rename(self.output, lambda new: shutil.copyfile(path, new))
