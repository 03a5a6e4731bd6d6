"""Another name of tools/benchmark.py, which times TFLite files as well as all others."""

import pathlib
import runpy
import sys

TOOL = pathlib.Path(__file__).resolve().with_name("benchmark.py")

if __name__ == "__main__":
    sys.argv[0] = str(TOOL)
    runpy.run_path(str(TOOL), run_name="__main__")
