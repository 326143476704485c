"""From assignment to running: topics checked and created, offsets found, stores restored, others watched."""
