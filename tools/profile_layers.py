"""`kprune profile`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "profile"]

    from kprune.cli import main

    main()
