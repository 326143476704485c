"""The ``streamstate`` command: click commands over the library, no logic of its own."""
