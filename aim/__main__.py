"""`python -m aim` is `aim`."""

from aim.cli import main

main()
