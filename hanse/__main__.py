"""`python -m hanse`: the `hanse` command where its script is not on the path."""

from hanse.cli import main

if __name__ == "__main__":
    main()
