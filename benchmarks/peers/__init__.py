"""What other systems need to take part, each installed into a place of its own under ``build/bench``."""
