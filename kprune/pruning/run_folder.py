"""The folder of a long run: what it has found so far, and its models, so that a run that was killed goes on."""

import hashlib
import json
import pathlib

import keras

from kprune.compat.variables import to_numpy
from kprune.utils.checks import check_path
from kprune.utils.errors import ModelError, OptionError
from kprune.utils.files import write_by_rename

SCHEMA = 1


def fingerprint(model) -> str:
    """Tells networks apart: a hash of all weights."""
    digest = hashlib.sha256()
    for weight in model.weights:
        value = to_numpy(weight)
        digest.update(str(value.shape).encode() + value.tobytes())
    return digest.hexdigest()


class RunFolder:
    """Keeps the state of a run as JSON, and models beside it; each file appears by rename.

    Args:
      path: the folder, made if missing; None: nothing is kept.
      name: of the JSON file.
      settings: what makes the run what it is, as JSON holds it; a folder with a state of other settings is refused.

    Attributes:
      state: what an earlier run left, or None.

    Raises:
      OptionError: the folder holds another run, or something that is no run.
    """

    def __init__(self, path, name: str, settings: dict):
        if path is not None:
            check_path("directory", path)
        self.path = None if path is None else pathlib.Path(path)
        self.name, self.settings = name, json.loads(json.dumps(settings))
        self.state = None
        if self.path is None:
            return
        if self.path.exists() and not self.path.is_dir():
            raise OptionError(f"directory {self.path} is a file.", "A folder.", "Choose another name.")
        self.path.mkdir(parents=True, exist_ok=True)
        if (self.path / name).exists():
            self.state = self.read(self.path / name)

    def read(self, path: pathlib.Path) -> dict:
        """The state in a file, after a check that it is of this run."""
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            schema, settings, state = data["schema"], data["settings"], data["state"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OptionError(
                f"{path} cannot be read: {error!r}.", "What this run wrote.", "Choose another directory."
            ) from error
        given = {"schema": SCHEMA, **self.settings}
        for key in given.keys() | settings.keys() | {"schema"}:
            found = schema if key == "schema" else settings.get(key)
            if found != given.get(key):
                raise OptionError(
                    f"directory {path.parent} holds a run with {key} {found}, and this one has {given.get(key)}.",
                    "A folder of the same run: the same network, weights and options.",
                    "Choose another directory, or go on with what that run began with.",
                )
        return state

    def save(self, state: dict):
        """Writes the state; what is saved before it (models) belongs to it."""
        if self.path is not None:
            text = json.dumps({"schema": SCHEMA, "settings": self.settings, "state": state}, indent=1)
            write_by_rename(self.path / self.name, lambda temporary: temporary.write_text(text + "\n"))

    def save_model(self, model, name: str):
        """Writes a model as `name`."""
        if self.path is not None:
            write_by_rename(self.path / name, model.save)

    def load_model(self, name: str):
        """Reads a model, with its optimizer.

        Raises:
          ModelError: the file is missing, or Keras cannot read it.
        """
        try:
            return keras.saving.load_model(self.path / name)
        except Exception as error:
            raise ModelError(
                f"{self.path / name} cannot be read, so the run cannot go on: {error}",
                "A model whose layers, losses and metrics Keras knows.",
                "Register them with keras.saving.register_keras_serializable (Lambda layers: "
                "keras.config.enable_unsafe_deserialization) and start again; nothing is lost.",
            ) from error
