"""For all tests."""

from __future__ import annotations

import signal

from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in a job that a shell has put into the background; the processes that tests start would ignore it, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Examples are judged by what they compute: on a busy machine any of them may take its time.
settings.register_profile("streamstate", deadline=None)
settings.load_profile("streamstate")
