"""The life of a record in one task: its inputs, the chain of operators, failures and stores."""
