"""`kprune benchmark`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "benchmark"]

    from kprune.cli import main

    main()
