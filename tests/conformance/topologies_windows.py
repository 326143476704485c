"""Windows, sessions, cogroup, suppress."""
