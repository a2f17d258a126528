"""What the site needs beyond MkDocs: formulas as MathML, the reports of the committed results, docstrings it can read.

Formulas are written as GitHub reads them, in ```` ```math ```` blocks and between ``$` `` and `` `$``. They become
MathML when the site is built, so that a page needs neither a script nor a font from elsewhere.
"""

import re
from pathlib import Path
from typing import Any

from griffe import Extension, Object
from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```math\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"\$`(.+?)`\$")
_DOCSTRING_BLOCK = re.compile(r"^\.\. math::(.*)\n((?:[ ]+\S.*(?:\n|\Z))*)", re.MULTILINE)
_DOCSTRING_INLINE = re.compile(r":math:`(.+?)`")


def on_files(files: Files, config: Any) -> Files:
    """Add each run's report and its figures, where the links of the repository find them."""
    for path in sorted((ROOT / "results").glob("*/report/**/*")):
        if path.suffix in {".html", ".svg"}:
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Turn formulas into MathML, and links to ``../results`` into links within the site."""
    markdown = _BLOCK.sub(lambda found: _display(found[1]), markdown)
    markdown = _INLINE.sub(lambda found: convert(found[1]), markdown)
    return markdown.replace("](../results/", "](results/")


class Docstrings(Extension):
    """Bring the docstrings to what Griffe and Markdown read: the section ``Examples:``, and formulas as MathML."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one object's docstring."""
        if obj.docstring:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            text = _DOCSTRING_BLOCK.sub(lambda found: _display(_aligned(found[1] + found[2])), text)
            obj.docstring.value = _DOCSTRING_INLINE.sub(lambda found: convert(found[1]), text)


def _display(formula: str) -> str:
    return f'<div class="formula">{convert(formula, display="block")}</div>\n'


def _aligned(formula: str) -> str:
    """A formula of several lines, aligned at each ``&``, as LaTeX wants it."""
    return f"\\begin{{split}}{formula}\\end{{split}}" if "&" in formula else formula
