"""Names of operations that stay when a model is copied, loaded or pruned."""

import re

NUMBER = re.compile(r"_\d+$")


class Names:
    """The names by which one trace calls operations.

    Inside a layer that is made of others, the config does not hold the names that Keras makes up ("conv2d_7"), so a
    copy has others. There they are numbered anew, in the order in which they run.
    """

    def __init__(self):
        self._inside: dict[str, dict[int, str]] = {}

    def enter(self, scope: str, outer: str, is_model: bool):
        """Begins a scope inside `outer`; one of a model has the names of its config, unless it is in a layer itself."""
        if not is_model or outer in self._inside:
            self._inside.setdefault(scope, {})

    def of(self, scope: str, operation) -> str:
        """The name of an operation in a scope."""
        known = self._inside.get(scope)
        if known is None:
            return operation.name
        if id(operation) not in known:
            base = NUMBER.sub("", operation.name)
            made_up = base.replace("_", "") == type(operation).__name__.replace("_", "").lower()
            count = sum(NUMBER.sub("", name) == base for name in known.values())
            known[id(operation)] = (f"{base}_{count}" if count else base) if made_up else operation.name
        return known[id(operation)]

    def changed(self) -> dict[int, str]:
        """By the id of the operation, the names given inside layers."""
        return {key: name for names in self._inside.values() for key, name in names.items()}
