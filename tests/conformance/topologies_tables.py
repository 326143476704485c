"""Tables, joins with them, table aggregations."""
