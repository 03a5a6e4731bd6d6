"""Properties of any model, on random graphs; `tools/fuzz.py` runs more of them."""

import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from properties import check_random

EXAMPLES = int(os.environ.get("KPRUNE_FUZZ_EXAMPLES", 25))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=EXAMPLES <= 25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_random_graph(data):
    check_random(data)
