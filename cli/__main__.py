"""`python -m gotrace.cli`."""

from gotrace.cli.main import main

main()
