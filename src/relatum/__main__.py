"""`python -m relatum`, where the command `relatum` is not on the path."""

from relatum.cli import main

main()
