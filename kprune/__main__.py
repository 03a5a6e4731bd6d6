"""`python -m kprune` is `kprune`."""

from kprune.cli import main

if __name__ == "__main__":
    main()
