"""Running an application: settings, the composition of its parts, and the loop."""

from streamstate.app.application import CONSUMER_DEFAULTS, Application, Settings, client_properties, explained, run

__all__ = ["CONSUMER_DEFAULTS", "Application", "Settings", "client_properties", "explained", "run"]
