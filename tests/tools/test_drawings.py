"""The drawings of the documentation are made from the code."""

import contextlib

import pytest

pytest.importorskip("matplotlib")


def run_quietly(run_script, *arguments):
    with contextlib.suppress(SystemExit):
        run_script(*arguments)


def test_rooms_are_printed_and_drawn(run_script, tmp_path, capsys):
    run_quietly(run_script, "draw_rooms", f"--output={tmp_path / 'rooms.png'}")
    printed = capsys.readouterr().out
    assert "0 circles: utils < compat < rules < graph < cost" in printed
    assert (tmp_path / "rooms.png").stat().st_size > 10_000


def test_a_circle_is_found_and_shortcuts_are_left_out(run_script):
    tool = run_script("draw_rooms", run_name="drawing")
    arrows = {("b", "a"): 1, ("c", "b"): 1, ("c", "a"): 1, ("d", "c"): 1, ("c", "d"): 1}
    seen = tool["reachable"]("abcd", arrows)
    assert tool["find_circles"](seen) == [["c", "d"]]
    del arrows["c", "d"]
    seen = tool["reachable"]("abcd", arrows)
    assert tool["find_circles"](seen) == [] and tool["in_order"](seen) == list("abcd")
    assert tool["without_shortcuts"](arrows, seen) == [("b", "a"), ("c", "b"), ("d", "c")]


def test_the_ids_of_a_traced_block_are_drawn(run_script, tmp_path):
    run_quietly(run_script, "draw_ids", f"--output={tmp_path / 'ids.png'}")
    assert (tmp_path / "ids.png").stat().st_size > 10_000
