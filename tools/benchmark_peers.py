"""Prunes ResNet50 with kprune and with other tools, each in an environment of its own, and writes a table.

python tools/benchmark_peers.py                                     # makes the environments: some GB, some minutes
python tools/benchmark_peers.py --peers=kprune,torch-pruning --cache=/somewhere/else

Every tool gets the network of keras.applications (224x224, random weights; on PyTorch the same layers), is asked to
take away --target by the magnitude of weights, and is asked for the smallest network that it can make. A tool that
cannot be installed or run has its reason in its row. Rows of tools that are not asked for stay as they are in the
file. What is counted is counted the same way for all, from the shapes of weights.
"""

import dataclasses
import datetime
import json
import os
import pathlib
import subprocess
import sys

from absl import flags

from kprune.cli import common
from kprune.utils.errors import OptionError
from kprune.utils.files import write_by_rename
from kprune.utils.machine import machine_facts

FLAGS = flags.FLAGS
flags.DEFINE_list("peers", ["all"], "Which tools: kprune, torch-pruning, mct, tfmot, or all.")
flags.DEFINE_float("target", 0.5, "Share to remove, 0..1.")
flags.DEFINE_string("cache", None, "Folder of the virtual environments (default: peers in the user's cache).")
flags.DEFINE_string("output", "docs/results/peers.md", "The Markdown file; the same facts as JSON beside it.")
flags.DEFINE_float("minutes", 20, "The longest that one tool may take, its installation apart.")
flags.DEFINE_string("remark", "", "Said in the rows of this run, such as what else the machine did.")
flags.DEFINE_integer("threads", 1, "CPU threads that each tool may use.")

WORKERS = pathlib.Path(__file__).resolve().parent / "peers"
COLUMNS = (
    *("tool", "on", "seconds", "memory", "layers that can lose filters", "smallest: FLOPs", "smallest: parameters"),
    *("channels are", "FLOPs left", "parameters left", "how the target was given"),
)


@dataclasses.dataclass(frozen=True)
class Peer:
    """A tool.

    Attributes:
      title: its name in the table.
      worker: the script that prunes with it.
      packages: what pip installs into its environment; none: it runs in this one.
    """

    title: str
    worker: str
    packages: tuple[str, ...] = ()


PEERS = {
    "kprune": Peer("kprune", "kprune_worker.py"),
    # The newest PyTorch that has a build for CPUs alone everywhere.
    "torch-pruning": Peer("Torch-Pruning", "torch_pruning_worker.py", ("torch-pruning", "torch==2.13.0", "numpy")),
    # MCT knows tf.keras up to 2.15 only.
    "mct": Peer(
        "Model Compression Toolkit",
        "mct_worker.py",
        ("model-compression-toolkit", "tensorflow-cpu==2.15.1", "numpy<2", "setuptools<81"),
    ),
    # Later ones want tf_keras, which brings all of TensorFlow a second time.
    "tfmot": Peer(
        "tfmot, magnitude masks",
        "tfmot_worker.py",
        ("tensorflow-model-optimization==0.7.5", "tensorflow-cpu==2.15.1", "numpy<2", "setuptools<81"),
    ),
}


class PeerError(Exception):
    """A tool that could not be installed or run; the text is the reason."""


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR") or "Error:" in line]
    return (errors or lines or ["no message"])[-1]


def checked(command: list, what: str, **options) -> str:
    """What a command prints.

    Raises:
      PeerError: it failed.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"{what} took longer than {error.timeout:.0f} s") from error
    if done.returncode:
        raise PeerError(f"{what} failed: {last_line(done.stderr + done.stdout)}")
    return done.stdout


def environment_of(name: str, peer: Peer, cache: pathlib.Path) -> str:
    """The Python that has the tool; installed where it is not yet."""
    if not peer.packages:
        return sys.executable
    folder = cache / name
    python, stamp, wanted = folder / "bin" / "python", folder / "packages.json", json.dumps(peer.packages)
    if not stamp.is_file() or stamp.read_text() != wanted:
        print(f"Installing {peer.title} into {folder}", flush=True)
        checked([sys.executable, "-m", "venv", "--clear", str(folder)], "making a virtual environment")
        checked([str(python), "-m", "pip", "install", "--quiet", *peer.packages], "pip")
        stamp.write_text(wanted)
    return str(python)


def measure(peer: Peer, python: str) -> dict:
    """The facts that the tool's worker prints last."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), str(FLAGS.threads))
    ours = ("PYTHONPATH", "KERAS_BACKEND") if peer.packages else ()  # meant for this environment, not for the tool's
    variables = {name: value for name, value in os.environ.items() if name not in ours}
    variables |= threads | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONWARNINGS": "ignore"}
    command = [python, str(WORKERS / peer.worker), str(FLAGS.target)]
    printed = checked(command, "the run", env=variables, timeout=60 * FLAGS.minutes)
    return json.loads(printed.splitlines()[-1])


def cells(title: str, facts: dict) -> list[str]:
    if "reason" in facts:
        return [title, f"not run: {facts['reason'].replace('|', '/')}", *[""] * (len(COLUMNS) - 2)]

    def share(of: str, kind: str) -> str:
        return f"{facts[of][kind] / facts['whole'][kind]:.1%}"

    memory = "not told" if facts["peak_bytes"] is None else f"{facts['peak_bytes'] / 2**20:.0f} MiB"
    return [
        *(f"{title} {facts['version']}", facts["runs_on"], f"{facts['seconds']:.1f}", memory),
        *(f"{facts['prunable']}/{facts['layers']}", share("lowest", "flops"), share("lowest", "params")),
        *("removed" if facts["removes"] else "only masked", share("left", "flops"), share("left", "params")),
        "; ".join(filter(None, [facts["how"], facts.get("remark")])),
    ]


def page(results: dict, machine: dict) -> str:
    """The Markdown of all results."""
    whole = next((facts["whole"] for facts in results.values() if "whole" in facts), None)
    size = f"{whole['flops'] / 1e9:.2f} G multiply-accumulates, {whole['params']:,} parameters" if whole else ""
    rows = [COLUMNS, ["---"] * len(COLUMNS), *(cells(PEERS[name].title, facts) for name, facts in results.items())]
    lines = [
        "# Side by side with other tools",
        "",
        f"ResNet50 at 224x224 with random weights ({size}), asked to lose {FLAGS.target:.0%}",
        f"by the magnitude of weights. One run each, {FLAGS.threads} CPU thread(s), {machine.get('processor', '')},",
        f"{datetime.date.today()}. `python tools/benchmark_peers.py` writes this page; facts as JSON lie beside it.",
        "",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        "- *seconds*, *memory*: from the model in memory to the pruned one; the height beyond what was in use before.",
        "- *smallest*: what is left of the network when the tool is asked for as little as it can make.",
        "- FLOPs are multiply-accumulates of conv and dense layers, counted from the shapes of weights for all alike.",
        "- How good the pruned networks are is not compared: without training all have random weights.",
    ]
    return "\n".join(lines) + "\n"


def chosen() -> dict[str, Peer]:
    names = list(PEERS) if FLAGS.peers == ["all"] else FLAGS.peers
    unknown = sorted(set(names) - set(PEERS))
    if unknown:
        raise OptionError(f"--peers names {', '.join(unknown)}.", f"Of {', '.join(PEERS)}, or all.", "Correct --peers.")
    return {name: PEERS[name] for name in names}


def kept(path: pathlib.Path) -> dict:
    """The results of an earlier run with the same target."""
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return earlier["results"] if earlier.get("target") == FLAGS.target else {}


def main(_):
    peers = chosen()
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
    cache = pathlib.Path(FLAGS.cache).resolve() if FLAGS.cache else home / "kprune" / "peers"
    output = pathlib.Path(FLAGS.output)
    results = kept(output.with_suffix(".json"))
    for name, peer in peers.items():
        try:
            results[name] = measure(peer, environment_of(name, peer, cache)) | {"remark": FLAGS.remark}
        except PeerError as error:
            results[name] = {"reason": str(error)}
        print(json.dumps({name: results[name]}), flush=True)
    whole = {json.dumps(facts["whole"], sort_keys=True) for facts in results.values() if "whole" in facts}
    if len(whole) > 1:
        raise PeerError(f"The tools did not get the same network: {', '.join(sorted(whole))}")
    machine, results = machine_facts(), {name: results[name] for name in PEERS if name in results}
    facts = json.dumps({"target": FLAGS.target, "machine": machine, "results": results}, indent=1) + "\n"
    for path, text in ((output, page(results, machine)), (output.with_suffix(".json"), facts)):
        write_by_rename(path, lambda part, text=text: part.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    common.run(main)
