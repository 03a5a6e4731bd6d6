"""What this machine is: processor, cores, load, and versions of what timings depend on."""

import contextlib
import os
import pathlib
import platform
import re
from importlib import metadata

PACKAGES = ("kprune", "numpy", "ai-edge-litert", "onnxruntime", "tensorflow", "tensorflow-cpu", "keras", "jax", "torch")


def machine_facts() -> dict:
    """Processor, cores, clock governor, load and versions, as far as the system tells."""
    facts = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.+)", pathlib.Path("/proc/cpuinfo").read_text())
        facts["processor"] = found[1] if found else platform.machine()
    with contextlib.suppress(OSError):
        governor = pathlib.Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        facts["governor"] = governor.read_text().strip()
    with contextlib.suppress(OSError, AttributeError):
        facts["load"] = list(os.getloadavg())
    facts["versions"] = {}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts["versions"][package] = metadata.version(package)
    return facts
