"""The life of a commit: one transaction over outputs, changelogs and input offsets, and what follows it."""
