"""Names that stand for classes, with aliases, and what users register from outside."""

from collections.abc import Callable, Iterable

from kprune.utils.errors import OptionError


class Registry:
    """Maps names (and aliases) to classes of one kind.

    Args:
      kind: what the names stand for, in one word, for messages.

    Example:
      >>> criteria = Registry("criterion")
      >>> @criteria.register("l1", "l1_norm")
      ... class L1: ...
      >>> criteria.get("l1")
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._classes: dict[str, type] = {}

    def register(self, name: str, *aliases: str) -> Callable[[type], type]:
        """A class decorator that makes the class known under a name and its aliases.

        Raises:
          OptionError: a name is no text.
        """

        for one in (name, *aliases):
            if not isinstance(one, str) or not one:
                raise OptionError(
                    f"A {self.kind} is registered as {one!r}.", "A name.", f'Pass "my_{self.kind}", and then the class.'
                )

        def decorate(cls: type) -> type:
            self._classes.update(dict.fromkeys((name, *aliases), cls))
            cls.name = name
            return cls

        return decorate

    def names(self) -> Iterable[str]:
        return sorted({cls.name for cls in self._classes.values()})

    def get(self, name: str) -> type:
        """The class of that name.

        Raises:
          OptionError: nothing of that name is registered.
        """
        if name not in self._classes:
            raise OptionError(
                f"There is no {self.kind} '{name}'.",
                f"One of {', '.join(self.names())}.",
                f"Check the spelling, or register your own {self.kind}.",
            )
        return self._classes[name]
