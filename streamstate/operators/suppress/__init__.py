"""``Table.suppress``: changes held back until a time limit, or until windows close."""
