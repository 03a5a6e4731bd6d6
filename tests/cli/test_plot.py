"""`kprune plot`: every picture, and what each refuses."""

import json

import pytest

import kprune
from kprune.cli.common import load_model


@pytest.fixture(autouse=True, scope="module")
def files(folder):
    """A plan, a record and runs."""
    kprune.plan_pruning(load_model(folder / "model.keras"), 0.3).save(folder / "plan.json")
    history = {"pruned_flops": [0.1, 0.3], "rates": [{"stem": 0.1}, {"stem": 0.3}], "val_accuracy": [0.8, None]}
    (folder / "record.json").write_text(json.dumps({"schema": 1, "history": history}))
    runs = [{"rule": "l1", "pruned_flops": 0.5, "accuracy": 0.1 * seed} for seed in range(3)]
    (folder / "runs.jsonl").write_text("\n".join(map(json.dumps, runs)) + "\n\n")
    (folder / "broken.jsonl").write_text("{}\n{")


PICTURES = {
    "filters": ["--model=model.keras", "--plan=plan.json", "--images=images.npy", "--metric=cosine"],
    "rates": ["--model=model.keras", "--layers=stem", "--alphas=0.5,1", "--noguard"],
    "overlap": ["--model=model.keras", "--criteria=similarity,l1,hrank", "--target_flops=0.3", "--images=images.npy"],
    "tradeoff": ["--records=runs.jsonl", "--method=rule", "--before=0.5", "--where=pruned_flops=0.5"],
    "rounds": ["--history=record.json"],
}
MISTAKES = [
    (["--picture=rounds", "--history=record.json", "--alpha=2"], "--alpha is not for --picture=rounds"),
    (["--picture=tradeoff", "--records=broken.jsonl"], "line 2 of broken.jsonl is not JSON"),
    (["--picture=tradeoff", "--records=images.npy"], "line 1 of images.npy is not JSON"),
    (["--picture=tradeoff", "--records=runs.jsonl", "--where=rule=l7"], "no run has this value"),
    (["--picture=rounds", "--history=runs.jsonl"], "runs.jsonl is not JSON"),
    (["--picture=overlap", "--plans=plan.json", "--model=model.keras", "--criteria=l1"], "either --plans"),
    (["--picture=overlap", "--model=model.keras", "--criteria=l1", "--labels=x.npy"], "--labels wants --images"),
    (["--picture=overlap", "--plans=a=plan.json"], "There are 1 plans"),
    (["--picture=rates", "--model=model.keras", "--alphas=much"], "could not convert"),
    (["distances"], "--picture=distances wants --model"),
]


@pytest.mark.parametrize("name, rest", PICTURES.items())
def test_pictures_are_written(command, folder, name, rest):
    pytest.importorskip("matplotlib")
    code, _, error = command("plot", name, *rest, f"--output={name}.svg")
    assert code == 0 and "<svg" in (folder / f"{name}.svg").read_text(), error


@pytest.mark.parametrize("arguments, message", MISTAKES)
def test_a_mistake_is_one_line(mistake, folder, arguments, message):
    assert message in mistake("plot", *arguments, "--output=none.svg")
    assert not (folder / "none.svg").exists()
