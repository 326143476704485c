"""Tokens for SASL OAUTHBEARER from a function that users give: kept while they last, and what it raises is said.

A client calls in a thread of its own, keeps no word of what was raised, and tries again after ten seconds. A new client
waits for its first token just as long, and then does not say why there is none.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from streamstate.engine.ports import LoginFailed

__all__ = ["TokenSource"]

log = logging.getLogger("streamstate.kafka")

# A broker takes no second login within a second.
LEAST_S = 2.0


class TokenSource:
    """The ``oauth_cb`` of all clients of a process.

    Args:
        function: takes ``sasl.oauthbearer.config``; returns the token and when it expires, in seconds since 1970. It is
            called by one thread at a time.
        clock: seconds since 1970.
    """

    def __init__(self, function: Callable[[str], tuple[str, float]], clock: Callable[[], float] = time.time) -> None:
        self._function = function
        self._clock = clock
        self._lock = threading.Lock()
        # The newest one, by ``sasl.oauthbearer.config``.
        self._known: dict[str, tuple[str, float]] = {}

    def __call__(self, config: str) -> tuple[str, float]:
        """A new token; while there is none, the last one as long as it lasts.

        Raises:
            LoginFailed: the function has raised, or what it returns is no token; neither token nor config is shown.

        >>> TokenSource(lambda config: None)("")
        Traceback (most recent call last):
        streamstate.engine.ports.LoginFailed: oauth_cb returns NoneType; it must return the token, a str, and the time \
at which it expires, in seconds since 1970
        """
        with self._lock:
            try:
                self._known[config] = token = self._asked(config)
            except LoginFailed as error:
                if not self._lasts(config):
                    log.warning("no token for the login: %s", error)
                    raise
                token = self._known[config]
                left_s = token[1] - self._clock()
                log.warning("no new token for the login, the last one expires in %.0f s: %s", left_s, error)
            return token

    def prepare(self, config: str) -> None:
        """Have a token for a client that is about to be made.

        Raises:
            LoginFailed: there is none.
        """
        with self._lock:
            if not self._lasts(config):
                self._known[config] = self._asked(config)

    def _lasts(self, config: str) -> bool:
        return config in self._known and self._known[config][1] - self._clock() >= LEAST_S

    def _asked(self, config: str) -> tuple[str, float]:
        try:
            found = self._function(config)
        except Exception as error:
            raise LoginFailed(f"oauth_cb raised {type(error).__name__}: {error}") from error
        match found:
            case (str() as token, int() | float() as expires_at):
                return token, expires_at
        raise LoginFailed(
            f"oauth_cb returns {type(found).__name__}; it must return the token, a str, and the time at which it "
            f"expires, in seconds since 1970"
        )
