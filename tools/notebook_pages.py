"""A hook of mkdocs (see mkdocs.yml): each notebook of docs/ becomes a page of its code and the text that it printed."""

import json
import pathlib

from mkdocs.structure.files import File


def to_markdown(notebook: dict) -> str:
    """The cells of a notebook one after the other."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
        printed = ["".join(output["text"]) for output in cell.get("outputs", ()) if output["output_type"] == "stream"]
        parts += [f"```text\n{text.rstrip()}\n```" for text in printed]
    return "\n\n".join(parts) + "\n"


def on_files(files, config):
    """Adds the pages."""
    for path in sorted(pathlib.Path(config.docs_dir).glob("*.ipynb")):
        text = to_markdown(json.loads(path.read_text(encoding="utf-8")))
        files.append(File.generated(config, f"{path.stem}.md", content=text))
    return files
