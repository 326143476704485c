"""The clients' log lines come at a bounded rate, and say how many were left out."""

from __future__ import annotations

import logging

from streamstate.kafka import logs


def test_one_line_per_kind_and_interval(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(logs.time, "monotonic", lambda: now[0])
    logger = logging.getLogger("test.client.log")
    logger.addFilter(logs.RateLimit())
    with caplog.at_level(logging.INFO, logger="test.client.log"):
        for number in range(50):
            logger.error("FAIL [rdkafka#consumer-%d] connect", number)
        logger.warning("MAXPOLL [rdkafka#consumer-1] exceeded")
        now[0] += logs.INTERVAL_S
        logger.error("FAIL [rdkafka#consumer-99] connect")
        logger.warning("GETPID [rdkafka#producer-1] Broker: Coordinator load in progress: retrying")
    lines = [record.getMessage() for record in caplog.records]
    assert [line.split()[0] for line in lines] == ["FAIL", "MAXPOLL", "FAIL"]
    assert "49 more FAIL lines" in lines[-1]


def test_the_filter_is_added_once():
    first = logs.client_logger()
    assert logs.client_logger() is first
    assert sum(isinstance(known, logs.RateLimit) for known in first.filters) == 1
