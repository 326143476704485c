"""Stream-stream joins."""
