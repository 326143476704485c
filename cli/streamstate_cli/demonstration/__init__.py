"""What ``streamstate demo`` does: real flights, worker processes, one of them killed, and the proof.

``data`` reads the flights, ``feeder`` produces them, ``topics`` asks the broker, ``workers`` are the processes,
``view`` shows them, ``proof`` compares the output with the source, ``show`` directs.
"""
