"""``python -m streamstate_cli``."""

from streamstate_cli.main import main

main()
