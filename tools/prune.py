"""`kprune prune`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "prune"]

    from kprune.cli import main

    main()
