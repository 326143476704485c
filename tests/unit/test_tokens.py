"""Tokens from a function of users: the last one is used while it lasts, and failures are said."""

from __future__ import annotations

import pytest

from streamstate.engine.ports import LoginFailed
from streamstate.kafka.tokens import LEAST_S, TokenSource


class Provider:
    """Gives tokens that last for a minute, until it is out of order."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.given = 0
        self.failure: Exception | None = None

    def __call__(self, config: str) -> tuple[str, float]:
        if self.failure is not None:
            raise self.failure
        self.given += 1
        return f"{config}-{self.given}", self.now + 60


def test_each_call_gets_a_new_token_and_a_new_client_only_makes_sure_that_there_is_one() -> None:
    provider = Provider()
    tokens = TokenSource(provider, lambda: provider.now)
    tokens.prepare("a")
    tokens.prepare("a")
    assert provider.given == 1
    assert tokens("a") == ("a-2", 1_060)
    tokens.prepare("b")
    assert provider.given == 3


def test_a_provider_out_of_order_is_survived_until_the_last_token_expires(caplog: pytest.LogCaptureFixture) -> None:
    provider = Provider()
    tokens = TokenSource(provider, lambda: provider.now)
    first = tokens("")
    provider.failure = TimeoutError("no answer")
    provider.now += 50
    assert tokens("") == first
    assert "the last one expires in 10 s: oauth_cb raised TimeoutError: no answer" in caplog.text
    tokens.prepare("")
    provider.now += 10 - LEAST_S / 2
    with pytest.raises(LoginFailed, match="oauth_cb raised TimeoutError: no answer"):
        tokens("")
    with pytest.raises(LoginFailed):
        tokens.prepare("")
    assert "-1" not in caplog.text
    provider.failure = None
    assert tokens("")[0] == "-2"


@pytest.mark.parametrize("wrong", [None, "token", ("token",), (b"token", 5.0), ("token", "soon")])
def test_what_is_no_token_is_refused_and_not_shown(wrong: object) -> None:
    with pytest.raises(LoginFailed, match="must return the token") as refused:
        TokenSource(lambda config: wrong)("")  # type: ignore[arg-type, return-value]
    assert "'token'" not in str(refused.value)
