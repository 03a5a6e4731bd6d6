"""`kprune export --format=saved_model`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "export", "--format=saved_model"]

    from kprune.cli import main

    main()
