"""The pictures of the documentation are what their script makes now."""

from __future__ import annotations

import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "docs" / "timelines"


def test_the_pictures_are_up_to_date() -> None:
    made = runpy.run_path(str(DIRECTORY / "draw.py"))["pictures"]()
    there = {path.stem: path.read_text(encoding="utf-8") for path in DIRECTORY.glob("*.svg")}
    assert there == made, "run: python docs/timelines/draw.py"


def test_each_picture_is_in_the_page_and_is_xml() -> None:
    page = (DIRECTORY.parent / "windows.md").read_text(encoding="utf-8")
    for path in DIRECTORY.glob("*.svg"):
        assert f"](timelines/{path.name})" in page
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
