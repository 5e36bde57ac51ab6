"""Two real replicas that exchange gradients over the loopback interface."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed here: make test-torch")

#: trains ten steps on each replica; with "plain" PyTorch exchanges the gradients by itself.
PROGRAM = """
import json, os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hanse.callbacks.pytorch import TrainingReport

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
inner = torch.nn.Sequential(torch.nn.Linear(40, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
model = DistributedDataParallel(inner, bucket_cap_mb=0.004)
own = sys.argv[1] == "own"
if own:
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
    model.register_comm_hook(None, allreduce_hook)
told = None
if sys.argv[1] != "plain":
    told = TrainingReport(model, gradient_noise=True, min_interval_s=0.0, warm_up=2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
torch.manual_seed(100 + dist.get_rank())
for _ in range(10):
    x = torch.randn(16, 40)
    optimizer.zero_grad()
    (model(x) - x.sum(1, keepdim=True)).pow(2).mean().backward()
    optimizer.step()
    if told:
        told.step(16)
if told:
    told.close()
weights = torch.cat([p.detach().flatten() for p in inner.parameters()])
print(json.dumps(weights.double().sum().item()), flush=True)
dist.destroy_process_group()
os._exit(0)  # gloo's threads abort one interpreter in ten as it ends, with or without a report
"""


#: the gradient of a sample is 0.3 in fifty places plus noise of variance 1; two passes in a step.
KNOWN = """
import os, sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hanse.callbacks.pytorch import TrainingReport

torch.set_num_threads(1)
dist.init_process_group("gloo")
inner = torch.nn.Linear(50, 1, bias=False)
model = DistributedDataParallel(inner, gradient_as_bucket_view=sys.argv[1] == "view")
torch.manual_seed(100 + dist.get_rank())
with TrainingReport(model, accumulation=1, gradient_noise=True, min_interval_s=3600.0) as told:
    for _ in range(400):
        inner.weight.grad = None
        with model.no_sync():
            (model(0.3 + torch.randn(8, 50)).mean() / 2).backward()
        (model(0.3 + torch.randn(8, 50)).mean() / 2).backward()
        told.step(8)
print(0.0, flush=True)
dist.destroy_process_group()
os._exit(0)
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def trained(how, tmp_path, environment, program=PROGRAM):
    """Sum of the weights that each of two replicas ends with."""
    common = environment | {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    replicas = []
    for rank in range(2):
        files = [(tmp_path / f"{how}-{rank}.{end}").open("w+") for end in ("out", "err")]
        words = [sys.executable, "-c", program, how]
        replica = subprocess.Popen(
            words, env=common | {"RANK": str(rank)}, stdout=files[0], stderr=files[1]
        )
        replicas.append((replica, *files))
    sums = []
    for replica, out, err in replicas:
        code = replica.wait()
        for file in (out, err):
            file.seek(0)
        assert code == 0, err.read()
        sums.append(json.loads(out.read().splitlines()[-1]))
        out.close()
        err.close()
    return sums


@pytest.fixture
def environment():
    import os

    return dict(os.environ)


def test_replicas_report_once_and_train_as_without_us(tmp_path, environment, lines):
    watched = trained("watched", tmp_path, environment)
    written = lines()
    assert watched[0] == watched[1]
    assert watched == trained("plain", tmp_path, environment)
    assert len(lines()) == len(written)
    # two steps of warm-up, then each of eight: samples of both replicas, from rank 0 alone
    assert [line["samples"] for line in written] == [32 * n for n in range(3, 11)]
    for line in written:
        assert (line["replicas"], line["nodes"], line["local_batch"]) == (2, 2, 16)
        assert 0.0 <= line.get("sync_time_s", 0.0) < line["step_time_s"]
    assert any(line.get("sync_time_s", 0.0) > 0 for line in written)
    assert written[-1]["grad_sqr"] > 0
    assert written[-1]["grad_var"] > 0


def test_a_hook_of_the_tenants_own_stays(tmp_path, environment, lines):
    sums = trained("own", tmp_path, environment)
    assert sums[0] == sums[1]
    assert lines()[-1]["samples"] == 320
    assert any(line.get("sync_time_s", 0.0) > 0 for line in lines())


@pytest.mark.parametrize("how", ["view", "copy"])
def test_noise_between_replicas_is_found(how, tmp_path, environment, lines):
    trained(how, tmp_path, environment, KNOWN)
    last = lines()[-1]
    assert (last["samples"], last["accumulation"]) == (400 * 32, 1)
    assert last["grad_sqr"] == pytest.approx(50 * 0.09, rel=0.12)
    assert last["grad_var"] == pytest.approx(50 / 32, rel=0.12)
