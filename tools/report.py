"""`kprune report`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "report"]

    from kprune.cli import main

    main()
