"""`kprune export --format=onnx`, from a checkout."""

import sys

if __name__ == "__main__":
    sys.argv[:1] = ["kprune", "export", "--format=onnx"]

    from kprune.cli import main

    main()
