"""What a job trains, described for the planner."""

from __future__ import annotations

from rest_framework import serializers

from broker.api.fields import Flag, Number, StrictSerializer, Text, WholeNumber


class VariableIn(StrictSerializer):
    """A trainable tensor; with them a plan says how they are kept alike."""

    name = Text(max_length=200)
    size_mb = Number(help_text="10⁶ bytes")
    sparse = Flag(required=False, help_text="an embedding: a step touches the rows of its tokens")
    rows = WholeNumber(
        required=False,
        allow_null=True,
        min_value=1,
        help_text="of its first axis; left out, vocab for a sparse one, and others are not cut",
    )


class ModelIn(StrictSerializer):
    """A dense transformer, described for the planner."""

    params = Number(help_text="parameters in all, embeddings included")
    layers = WholeNumber(min_value=1)
    hidden = WholeNumber(min_value=1)
    heads = WholeNumber(min_value=1)
    seq = WholeNumber(min_value=1, help_text="tokens of one sample")
    vocab = WholeNumber(min_value=1)
    global_batch = WholeNumber(min_value=1, help_text="samples of one step, over all GPUs")
    variables = serializers.ListField(
        child=VariableIn(), min_length=1, max_length=1000, required=False, allow_null=True
    )
