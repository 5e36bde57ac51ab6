"""A class's profile is read strictly, with a sentence for each field."""

from __future__ import annotations

import pytest

from federation.affinity.coldstart.operators import Operator
from federation.affinity.coldstart.profile import BadProfile, read_profile

OPERATORS = [{"kind": "Conv2D", "size": 1e6}, {"kind": "Decode", "size": 3, "on_cpu": True}]
SENT = {"operators": OPERATORS, "batch": 32, "parameters": 25.6e6}
WHOLE = {
    **SENT,
    "work": "ResNet-50 v1.5",
    "operations": 1.2e10,
    "precision": "single",
    "timings": [{"device": "NVIDIA-A100-SXM4-80GB", "seconds": [0.002, 0.001]}],
    "exchanges": [{"device": "V100", "gpus": 4, "seconds": 0.01}],
}


def test_a_whole_profile_is_read():
    found = read_profile(WHOLE)
    assert (found.work, found.operations, found.batch) == ("ResNet-50 v1.5", 1.2e10, 32.0)
    assert (found.precision, found.parameters) == ("single", 25.6e6)
    assert found.operators[1] == Operator("Decode", 3.0, on_cpu=True)
    assert found.seconds == {"A100 80GB": (0.002, 0.001)}
    assert found.exchanges == {("V100", 4): 0.01}
    network = found.network("mine")
    assert network is not None
    assert network.parameters == 25.6e6
    assert [(one.device, one.seconds) for one in found.timings("mine")] == [
        ("A100 80GB", 0.002),
        ("A100 80GB", 0.001),
    ]


def test_nothing_said_is_nothing_known():
    found = read_profile({})
    assert (found.work, found.operations, found.batch, found.operators) == ("", None, None, ())
    assert found.network("mine") is None


@pytest.mark.parametrize(
    ("document", "path", "why"),
    [
        ([], "profile", "JSON object"),
        ({"flops": 1}, "flops", "unknown field"),
        ({"work": ""}, "work", "name"),
        ({"work": "a\nb"}, "work", "name"),
        ({"work": 7}, "work", "name"),
        ({"operations": 0}, "operations", "above 0"),
        ({"operations": 5e-324}, "operations", "at least 1"),
        ({"parameters": 0.5}, "parameters", "at least 1"),
        ({"batch": 1e-4}, "batch", "at least 0.001"),
        ({**SENT, "operators": [{"kind": "C", "size": 5e-324}]}, "operators[0].size", "from 1"),
        ({**SENT, "operators": [{"kind": "C", "size": False}]}, "operators[0].size", "from 1"),
        (
            {**SENT, "timings": [{"device": "V100", "seconds": [1, 1e-12]}]},
            *("timings[0].seconds", "from 1e-09"),
        ),
        (
            {
                **SENT,
                "operators": OPERATORS * 400,
                "timings": [
                    {"device": d, "seconds": [1] * 800} for d in ("V100", "T4", "L4", "P100")
                ],
            },
            *("timings", "at most 3000 times"),
        ),
        ({"operations": -1.0}, "operations", "above 0"),
        ({"operations": float("nan")}, "operations", "above 0"),
        ({"operations": float("inf")}, "operations", "above 0"),
        ({"operations": 10**400}, "operations", "above 0"),
        ({"operations": "1e9"}, "operations", "number"),
        ({"batch": True}, "batch", "number"),
        ({"parameters": 1e16}, "parameters", "at most"),
        ({"precision": "fp8"}, "precision", "half"),
        ({"precision": ["half"]}, "precision", "half"),
        ({**SENT, "operators": {}}, "operators", "a list"),
        ({**SENT, "operators": OPERATORS * 2000}, "operators", "at most 1000"),
        ({**SENT, "operators": ["Conv2D"]}, "operators[0]", "kind and size"),
        ({**SENT, "operators": [{"kind": "C", "size": 1, "x": 1}]}, "operators[0]", "kind"),
        ({**SENT, "operators": [{"kind": "", "size": 1}]}, "operators[0].kind", "what it is"),
        ({**SENT, "operators": [{"kind": "C", "size": -1}]}, "operators[0].size", "elements"),
        (
            {**SENT, "operators": [{"kind": "C", "size": 1, "on_cpu": "yes"}]},
            *("operators[0].on_cpu", "true or false"),
        ),
        ({"operators": OPERATORS, "parameters": 1}, "batch", "say batch too"),
        ({"operators": OPERATORS, "batch": 1}, "parameters", "say parameters too"),
        ({"timings": []}, "operators", "say operators too"),
        ({**SENT, "timings": {}}, "timings", "a list"),
        ({**SENT, "timings": [{"device": "V100"}]}, "timings[0]", "device and seconds"),
        (
            {**SENT, "timings": [{"device": "abacus", "seconds": [1, 1]}]},
            *("timings[0].device", "no accelerator"),
        ),
        (
            {**SENT, "timings": [{"device": "V100", "seconds": [1]}]},
            *("timings[0].seconds", "2 times"),
        ),
        (
            {**SENT, "timings": [{"device": "V100", "seconds": [1, 0]}]},
            *("timings[0].seconds", "2 times"),
        ),
        (
            {**SENT, "timings": [{"device": d, "seconds": [1, 1]} for d in ("V100", "v100")]},
            *("timings[1]", "twice"),
        ),
        ({**SENT, "exchanges": 3}, "exchanges", "a list"),
        ({**SENT, "exchanges": [{}]}, "exchanges[0]", "device, gpus and seconds"),
        (
            {**SENT, "exchanges": [{"device": "V100", "gpus": 0, "seconds": 1}]},
            *("exchanges[0].gpus", "whole number"),
        ),
        (
            {**SENT, "exchanges": [{"device": "V100", "gpus": 2, "seconds": None}]},
            *("exchanges[0].seconds", "a time"),
        ),
        (
            {**SENT, "exchanges": [{"device": "V100", "gpus": 2, "seconds": 1}] * 2},
            *("exchanges[1]", "twice"),
        ),
    ],
)
def test_what_does_not_fit_is_told_by_its_field(document, path, why):
    with pytest.raises(BadProfile) as refused:
        read_profile(document)
    told = {problem.path: problem.why for problem in refused.value.problems}
    assert why in told[path]
    assert path in str(refused.value)


def test_every_field_that_does_not_fit_is_told_at_once():
    with pytest.raises(BadProfile) as refused:
        read_profile({"batch": 0, "precision": 1, "operations": -1, "x": 1})
    assert {problem.path for problem in refused.value.problems} == {
        *("batch", "precision", "operations", "x"),
    }
