"""How much is taken at once, and how long an outage may last."""
