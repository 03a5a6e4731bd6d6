"""`kprune export --format=tflite`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "export", "--format=tflite"]

    from kprune.cli import main

    main()
