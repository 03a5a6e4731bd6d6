"""An extension of griffe (see mkdocs.yml): an `Example:` in a docstring is shown as code, as one with several is."""

import re

import griffe


class ExamplesExtension(griffe.Extension):
    """Calls the section by the name that the parser knows."""

    def on_instance(self, *, obj, **options):
        if obj.docstring is not None:
            obj.docstring.value = re.sub(r"^( *)Example:$", r"\1Examples:", obj.docstring.value, flags=re.MULTILINE)
