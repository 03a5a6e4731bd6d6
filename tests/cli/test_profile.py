"""`kprune profile`: the table of a device, and plans that go by it."""

import keras
import pytest

import kprune

pytestmark = pytest.mark.tensorflow


def test_a_profile_begins_only_where_its_file_can_be_written(mistake):
    assert "no of table.json does not exist" in mistake("profile", "model.keras", "--output=no/table.json")


def test_a_profile_by_a_command_holds_what_it_says(command, mistake, folder):
    given = ["model.keras", "--output=sizes.json", "--sweeps=1", "--measure_command=stat -c %s"]
    assert command("profile", *given)[0] == 0
    table = kprune.LatencyTable.load(folder / "sizes.json")
    assert table.machine == {"measured_by": "stat -c %s"} and table.check["measured_ms"] > 1000
    assert "--threads is for layers timed here" in mistake("profile", *given, "--threads=2")


def test_a_profile_of_the_layers_is_what_plans_go_by(command, folder):
    code, printed, errors = command("profile", "model.keras", "--output=table.json", "--sweeps=1")
    assert code == 0, errors
    table = kprune.LatencyTable.load(folder / "table.json")
    assert f"{len(table.grids)} kinds of layers" in printed and table.quantize is None
    flags = ["model.keras", "--latency_table=table.json"]
    code, _, errors = command("prune", *flags, "--target_latency=0.1", "--output=timed")
    assert code == 0, errors
    before, after = kprune.Plan.load(folder / "timed" / "plan.json").latency
    assert after <= 0.9 * before and before == pytest.approx(
        table.predict(keras.models.load_model(folder / "model.keras"))
    )
