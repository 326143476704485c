"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# Examples are judged by what they compute: on a busy machine any of them may take its time.
settings.register_profile("streamstate", deadline=None)
settings.load_profile("streamstate")
