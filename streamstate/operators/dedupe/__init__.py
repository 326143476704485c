"""Leaving out records that came before: ``Stream.dedupe``."""
