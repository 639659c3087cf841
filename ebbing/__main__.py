"""``python -m ebbing``: the command line where its script is not on the path."""

from ebbing.cli import main

main()
