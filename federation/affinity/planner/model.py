"""What is trained: a dense transformer in mixed precision with Adam."""

from __future__ import annotations

from dataclasses import dataclass

from economics.errors import Problem
from federation.affinity.planner.checks import POSITIVE, Rule, count, refuse_any
from federation.affinity.planner.errors import BadDescription

RULES = {
    "params": Rule(most=1e16),
    "layers": count(1e5),
    "hidden": count(1e7),
    "heads": count(1e6),
    "seq": count(1e9),
    "vocab": count(1e9),
    "global_batch": count(1e9),
}


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A model and the batch it is trained on. Refuses with BadDescription what cannot be one."""

    params: float  #: all of them, embeddings included
    layers: int
    hidden: int
    heads: int
    seq: int  #: tokens of one sample
    vocab: int
    global_batch: int  #: samples of one optimizer step, over all GPUs
    samples: float | None = None  #: of the whole run; needed only for its time and credits

    def __post_init__(self) -> None:
        refuse_any(rule.problem(name, getattr(self, name)) for name, rule in RULES.items())
        if self.samples is not None:
            refuse_any([POSITIVE.problem("samples", self.samples)])
        if self.params <= self.embedding:
            why = f"must be more than the {self.embedding:g} of vocab times hidden"
            raise BadDescription((Problem("params", f"{why}, is {self.params:g}"),))

    @property
    def embedding(self) -> float:
        """Parameters of the word embedding; the output layer uses them too."""
        return float(self.vocab) * self.hidden

    @property
    def layer_params(self) -> float:
        """Parameters of one layer; what is not the embedding is spread evenly."""
        return (self.params - self.embedding) / self.layers

    @property
    def largest_layer(self) -> float:
        """Parameters of the largest piece that stage 3 of ZeRO gathers at once."""
        return max(self.layer_params, self.embedding)


def transformer_parameters(layers: int, hidden: int, vocab: int, seq: int = 0) -> float:
    """Parameters of a GPT: 12 L h² (1 + 13 / 12 h) + V h, and s h for learned positions."""
    return layers * (12.0 * hidden**2 + 13.0 * hidden) + float(vocab + seq) * hidden
