"""What the families of operators share: the task in the making, forwarding, lookups of rows, results held back."""
