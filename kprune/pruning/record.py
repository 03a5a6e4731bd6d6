"""What happened in a pruning run, round by round, in the form of Keras' `History`."""

import json

import numpy as np

from kprune.cost import WORDS
from kprune.selection import Plan
from kprune.utils.errors import OptionError, PlanError
from kprune.utils.files import write_by_rename

SCHEMA = 1
ALWAYS = ("flops", "params", "pruned_flops", "pruned_params", "filters", "rates")
OF_A_ROUND = ("epoch", "ratio", "relaxed", "target", "latency", "pruned_latency")


def check_history(history):
    """Refuses what is no record of rounds.

    Raises:
      OptionError: it is no dict of lists that are equally long.
    """
    lists = isinstance(history, dict) and all(isinstance(values, (list, tuple)) for values in history.values())
    if not lists or len({len(values) for values in history.values()}) > 1:
        raise OptionError(
            "history is no dict of lists of equal length.",
            "A list per name, with one entry per round.",
            "Pass the `history` of another PruningRecord, or nothing.",
        )


class PruningRecord:
    """One entry per round under each name, as `keras.callbacks.History` has one per epoch.

    Attributes:
      history: lists of equal length, None where a round has no such value. Always there, once there is a round:
        "flops" and "params" (what is left; FLOPs are multiply-accumulates of conv and dense layers, batch 1),
        "pruned_flops" and "pruned_params" (the share removed, 0..1, of the network before the first round), "filters"
        (how many are gone by now), "rates" (per layer the share of its filters that is gone, 0..1; frozen layers left
        out). With a latency table also "latency" (the milliseconds predicted) and "pruned_latency". Then what the round
        says of itself ("ratio", "relaxed", "epoch", "target"), and the metrics of the training that followed it, by
        their Keras names.

    Example:
      >>> callback = kprune.SimilarityPruning(0.5)
      >>> model.fit(x, y, validation_data=test, epochs=30, callbacks=[callback])
      >>> callback.record.history["val_accuracy"], callback.record.history["pruned_flops"]
    """

    def __init__(self, history: dict[str, list] | None = None):
        check_history(history or {})
        self.history = {name: list(values) for name, values in (history or {}).items()}

    def __len__(self) -> int:
        """The number of rounds."""
        return len(self.history.get("flops", ()))

    def __repr__(self) -> str:
        return f"PruningRecord({len(self)} rounds)"

    def add(self, plan: Plan, **details):
        """Appends a round.

        Args:
          plan: all that is removed by now, against the network before the first round.
          **details: more of the round, by name; whatever JSON can hold.
        """
        (flops_before, flops), (params_before, params) = plan.flops, plan.params
        rates = {entry.path: entry.rate for entry in plan.layers if entry.reason is None}
        gone = sum(entry.filters - len(entry.keep) for entry in plan.layers)
        shares = 1.0 - flops / max(flops_before, 1), 1.0 - params / max(params_before, 1)
        row = dict(zip(ALWAYS, (flops, params, *shares, gone, rates), strict=True)) | details
        if plan.latency is not None:
            row |= {"latency": plan.latency[1], "pruned_latency": 1.0 - plan.latency[1] / plan.latency[0]}
        rounds = len(self)
        for name in row.keys() | self.history.keys():
            self.history.setdefault(name, [None] * rounds).append(row.get(name))

    def measured(self, metrics: dict | None):
        """Notes the metrics of the training since the last round; of several epochs, those of the last stay.

        Args:
          metrics: numbers by name, as callbacks get them as `logs`; before the first round they are left out, as are
            those that are arrays, such as an F1 score per class.
        """
        rounds = len(self)
        if not rounds:
            return
        for name, value in (metrics or {}).items():
            if name not in (*ALWAYS, *OF_A_ROUND) and np.ndim(value) == 0:
                self.history.setdefault(name, [None] * rounds)[-1] = float(value)

    def rate(self, layer: str) -> list[float]:
        """The share of its filters that a layer has lost, round by round."""
        return [rates[layer] for rates in self.history.get("rates", ())]

    def line(self, place: int = -1) -> str:
        """One round in words."""
        row = {name: values[place] for name, values in self.history.items() if values[place] is not None}
        shares = {words: row.get(f"pruned_{kind}") for kind, words in WORDS.items()}
        removed = ", ".join(f"{share:.2%} of the {words}" for words, share in shares.items() if share is not None)
        metrics = [f"{name} {value:.4f}" for name, value in row.items() if name not in (*ALWAYS, *OF_A_ROUND)]
        return "; ".join([f"{removed} removed", *([row["relaxed"]] if "relaxed" in row else []), *metrics])

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA, "history": self.history}, indent=1)

    def save(self, path):
        """Writes the record as JSON.

        Raises:
          ExportError: the file cannot be written.
        """
        return write_by_rename(path, lambda temporary: temporary.write_text(self.to_json() + "\n"))

    @classmethod
    def load(cls, path) -> "PruningRecord":
        """Reads a record.

        Raises:
          PlanError: the file is missing, or is no record.
        """
        try:
            with open(path, encoding="utf-8") as file:
                data = json.load(file)
            if data["schema"] != SCHEMA:
                raise ValueError("another schema")
            return cls(data["history"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlanError(
                f"{path} is no pruning record: {error!r}.", "A file written by PruningRecord.save.", "Check the path."
            ) from error
