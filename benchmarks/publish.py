"""Results into a page of the documentation.

Rule of this module: only what stands between the two marks is replaced.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import markdown
from streamstate.errors import ConfigError

__all__ = ["BEGIN", "END", "publish", "replaced"]

BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"


def publish(found: Mapping[str, Any], plots: Sequence[Path], page: Path) -> None:
    """Replace the page's results; the plots and the JSON document go into a directory of the page's name beside it.

    Raises:
        ConfigError: the page lacks the marks.
    """
    text = page.read_text(encoding="utf-8")
    directory = page.with_suffix("")
    names = [f"{directory.name}/{path.name}" for path in plots]
    new = replaced(text, markdown(found, names), page)
    directory.mkdir(exist_ok=True)
    for path in plots:
        shutil.copyfile(path, directory / path.name)
    (directory / "results.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page.write_text(new, encoding="utf-8")


def replaced(text: str, results: str, page: Path) -> str:
    """The page's text with these results.

    Raises:
        ConfigError: it lacks the marks, or has them in the wrong order.
    """
    head, begun, rest = text.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ConfigError(f"{page} has no place for results: put the lines {BEGIN} and {END} into it")
    # One level deeper than the page's own sections.
    deeper = "\n".join(f"#{line}" if line.startswith("## ") else line for line in results.strip().splitlines())
    return f"{head}{BEGIN}\n\n{deeper}\n\n{END}{tail}"
