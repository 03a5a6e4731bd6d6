"""What an operation is to a stop-watch: all that its time depends on but its widths."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class OperatorConfig:
    """A kind of operation; its sizes are in the order of the axes.

    Attributes:
      operation: "conv", "depthwise", "dense", "add", "multiply", "max_pool", "average_pool" or "mean" (all places).
      size: height and width of the input; for "dense" how many places it is applied at.
      kernel, strides, dilation: two numbers each, or none.
      padding: "same" or "valid", or "".
      operands: how many inputs an "add" or "multiply" has.
    """

    operation: str
    size: tuple[int, ...]
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    padding: str = ""
    operands: int = 1

    @property
    def reads(self) -> bool:
        """Whether its numbers of channels in and out are two."""
        return self.operation in ("conv", "dense")

    @classmethod
    def from_json(cls, data: dict) -> "OperatorConfig":
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in data.items()})

    def __str__(self) -> str:
        by = "x".join
        kernel = f" {by(map(str, self.kernel))}" if self.kernel else ""
        strides = f"/{by(map(str, self.strides))}" if math.prod(self.strides) > 1 else ""
        dilation = f" dilated {by(map(str, self.dilation))}" if math.prod(self.dilation) > 1 else ""
        return f"{self.operation}{kernel}{strides}{dilation} {self.padding} at {by(map(str, self.size))}".replace(
            "  ", " "
        )
