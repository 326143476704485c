"""Tables: their rows, what is done row by row, and their changes as a stream."""
