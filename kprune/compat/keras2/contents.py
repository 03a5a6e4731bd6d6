"""What a model file says of itself, read without making anything of it: layers, who wrote it, code that it holds."""

import base64
import binascii
import builtins
import json
import re
import zipfile
from dataclasses import dataclass

import keras

# Packages whose classes a file may name; a class of another is made only where it was registered in this process.
PACKAGES = re.compile(r"(keras|tf_keras|tensorflow\.keras|tensorflow\.python\.keras)(\.|$)")
# How the code of a function begins, by the number of its 32-bit fields before the bytes of its instructions.
FIELDS = {4: "2", 5: "3.0 to 3.7", 6: "3.8 to 3.10"}
STRING = (0x73, 0xF3)


@dataclass(frozen=True)
class Contents:
    """What a file says.

    Attributes:
      config: the architecture as it was written, or None where it could not be read.
      version: the version of Keras that wrote it, or None.
    """

    config: object
    version: str | None

    @property
    def is_keras2(self) -> bool:
        """Whether a Keras before 3 wrote it."""
        return self.version is not None and self.version.split(".")[0] in ("1", "2")

    def code(self) -> dict[str, str | None]:
        """Per layer that holds Python bytecode, the Python versions that may have compiled it, or None."""
        found: dict[str, str | None] = {}
        _find_code(self.config, "a layer without a name", found)
        return found

    def functions(self) -> dict[str, str]:
        """Per Lambda that names a function of the user's, the name."""
        lambdas = [entry.get("config") for entry in dicts_in(self.config) if entry.get("class_name") == "Lambda"]
        named = [(one.get("name"), function_name(one.get("function"))) for one in lambdas if isinstance(one, dict)]
        return {str(layer): name for layer, name in named if name}

    def foreign(self, custom_objects: dict) -> dict[str, str]:
        """Classes of packages that are neither Keras nor registered, with the module that they come from."""
        found = {}
        for entry in dicts_in(self.config):
            module, kind = entry.get("module"), entry.get("class_name")
            name = entry.get("registered_name") or kind
            if not isinstance(module, str) or not isinstance(kind, str) or PACKAGES.match(module):
                continue
            if module == "builtins" and not hasattr(builtins, str(entry.get("config"))):
                continue  # what Keras writes for its own functions, as relu
            if kind not in custom_objects and keras.saving.get_registered_object(name, custom_objects) is None:
                found[kind] = module
        return found

    def mentions(self, word: str) -> bool:
        """Whether a text stands anywhere in the architecture."""
        return f'"{word}"' in json.dumps(self.config)


def read_contents(path) -> Contents:
    """What a file says of itself; nothing where it is no model file."""
    try:
        if str(path).endswith(".keras") and zipfile.is_zipfile(path):  # as Keras tells them apart
            with zipfile.ZipFile(path) as archive:
                version = json.loads(archive.read("metadata.json")).get("keras_version")
                return Contents(json.loads(archive.read("config.json")), version)
        import h5py

        with h5py.File(path, "r") as file:
            config, version = (_text(file.attrs.get(key)) for key in ("model_config", "keras_version"))
            return Contents(None if config is None else json.loads(config), version)
    except (OSError, KeyError, ValueError, AttributeError):
        return Contents(None, None)


def _text(value) -> str | None:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def dicts_in(value):
    """All dicts in a config, however deep."""
    if isinstance(value, dict):
        yield value
    if isinstance(value, (dict, list)):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from dicts_in(entry)


def function_name(function) -> str | None:
    """The name of a function in the config of a Lambda, where it is only named."""
    if isinstance(function, dict) and function.get("class_name") == "function":
        function = function.get("config")
    return function if isinstance(function, str) and re.fullmatch(r"[A-Za-z_][\w.]*", function) else None


def _find_code(value, layer: str, found: dict):
    """Adds the code in a config, by the name of the layer around it."""
    if isinstance(value, list):
        for entry in value:
            _find_code(entry, layer, found)
    if not isinstance(value, dict):
        return
    inner = value.get("config")
    if isinstance(inner, dict) and isinstance(inner.get("name"), str):
        layer = inner["name"]
    for key, kind in value.items():
        if key.endswith("_type") and kind == "lambda":
            found[layer] = found.get(layer) or _python_of(value.get(key.removesuffix("_type")))
    if value.get("class_name") == "__lambda__":
        found[layer] = found.get(layer) or _python_of(inner)
    if value.get("class_name") == "Lambda" and isinstance(inner, dict) and isinstance(inner.get("function"), list):
        found[layer] = found.get(layer) or _python_of(inner["function"])
    for entry in value.values():
        _find_code(entry, layer, found)


def _python_of(function) -> str | None:
    """The Python versions whose code objects begin like this one, told from the bytes alone."""
    while isinstance(function, dict):
        function = function.get("config", function.get("code", function.get("value")))
    text = function[0] if isinstance(function, list) and function else function
    if not isinstance(text, str):
        return None
    try:
        code = base64.b64decode(text.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):  # Keras 1 wrote the bytes as text
        code = text.encode("raw_unicode_escape")
    if not code or code[0] not in (0x63, 0xE3):
        return None
    count = next((n for n in FIELDS if len(code) > 1 + 4 * n and code[1 + 4 * n] in STRING), None)
    # Python 3.11 dropped the number of local variables, the third field: a function of something has at least one.
    return "3.11 or later" if count == 5 and not any(code[9:13]) else FIELDS.get(count)
