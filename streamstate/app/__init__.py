"""Run an application: settings, Kafka clients, wiring and the loop of a process.

- ``settings``: what users set; ``config`` reads it from flags, the environment and files.
- ``client_properties``, ``kafka_properties``: what Kafka clients are told, and which properties are refused.
- ``broker_errors``: explains errors of Kafka clients.
- ``wiring``: builds a worker on Kafka and RocksDB; ``application`` runs its loop.
- ``process``: ``run``, until a signal; ``script``: ``topology.run()``.
- ``acls``, ``reset``: the rights that an application needs, and starting over.
"""

from streamstate.app.application import Application
from streamstate.app.broker_errors import explained
from streamstate.app.client_properties import CONSUMER_DEFAULTS, client_properties
from streamstate.app.process import run
from streamstate.app.settings import Settings

__all__ = ["CONSUMER_DEFAULTS", "Application", "Settings", "client_properties", "explained", "run"]
