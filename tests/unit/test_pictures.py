"""The pictures of the documentation are what their scripts make now, and stand in its pages."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from docs.pictures import draw, modules

DOCS = Path(__file__).parents[2] / "docs"
PICTURES = DOCS / "pictures"
PROFILES = DOCS / "benchmarks"


def test_the_pictures_are_up_to_date() -> None:
    there = {path.stem: path.read_text(encoding="utf-8") for path in PICTURES.rglob("*.svg")}
    assert there == draw.pictures(), "run: python -m docs.pictures.draw"


def test_each_picture_is_in_a_page_and_is_xml() -> None:
    shown = {
        name for page in DOCS.glob("*.md") for name in re.findall(r"\]\(pictures/(\w+\.svg)\)", page.read_text("utf-8"))
    }
    paths = list(PICTURES.rglob("*.svg"))
    assert {path.name for path in paths} == shown
    for path in paths:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_nothing_is_cut_off() -> None:
    """No text begins or ends outside of its picture, by an ample width of its letters."""
    for path in PICTURES.rglob("*.svg"):
        root = ElementTree.parse(path).getroot()
        _, _, width, height = map(float, root.attrib["viewBox"].split())
        texts = [
            element for element in root.iter("{http://www.w3.org/2000/svg}text") if "transform" not in element.attrib
        ]
        assert texts
        for text in texts:
            at, size = float(text.attrib["x"]), 7.0 * len(text.text or "")
            left = at - {"middle": size / 2, "end": size}.get(text.attrib.get("text-anchor", ""), 0)
            assert left >= 0, (path.name, text.text)
            assert left + size <= width, (path.name, text.text)
            assert 10 <= float(text.attrib["y"]) <= height - 3, (path.name, text.text)


def test_each_profile_is_in_the_page_of_the_benchmarks_and_tells_nothing_of_the_machine() -> None:
    page = (DOCS / "benchmarks.md").read_text("utf-8")
    profiles = sorted(PROFILES.glob("*.svg"))
    assert {path.name for path in profiles} == set(re.findall(r"\]\(benchmarks/([\w-]+\.svg)\)", page))
    for path in profiles:
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"
        # Modules are named by their place in the library.
        assert re.findall(r"[( ]/[\w.-]+/[\w.-]+", path.read_text("utf-8")) == []


def test_the_picture_of_the_modules_is_up_to_date() -> None:
    drawn = modules.drawn()
    assert "app --> kafka" in drawn
    page = (DOCS.parent / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert f"```mermaid\n{drawn}\n```" in page, "run: python -m docs.pictures.modules"
