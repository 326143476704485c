"""Draws the pictures of the documentation, beside this file: ``python -m docs.pictures.draw``."""

from __future__ import annotations

from pathlib import Path

from docs.pictures import state_timelines, stream_time, timelines


def pictures() -> dict[str, str]:
    """Every picture by its file's name."""
    return {**timelines.pictures(), **state_timelines.pictures(), "stream_time": stream_time.picture()}


if __name__ == "__main__":
    for name, picture in pictures().items():
        path = Path(__file__).parent / f"{name}.svg"
        path.write_text(picture, encoding="utf-8")
        print(path)
