"""Two processes on the CPU: DDP and FSDP2 train to the same weights, and a sharded checkpoint resumes on one process."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from train_parts import tiny_config, write_clips

from ex4d.train.checkpoints import list_checkpoints, load_weights_only
from ex4d.train.train import train

SCRIPT = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from train_parts import tiny_config
from ex4d.train.train import make_trainer
import torch
mode, data, out, steps = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
make_trainer(tiny_config(data, steps=steps, accumulate=2, parallel=mode), out, cpu=True).fit()
# a process that leaves while the other one still reads its last message makes that one abort
(out / f"rank-{os.environ['RANK']}").touch()
until = time.monotonic() + 60  # the other one may have failed
while len(list(out.glob("rank-*"))) < 2 and time.monotonic() < until:
    time.sleep(0.01)
torch.distributed.destroy_process_group()
"""


def launch(mode, data, out, steps):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(Path(__file__).parent), mode, str(data), str(out), str(steps)]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    shared |= {"ACCELERATE_USE_CPU": "true"}
    ranks = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(2)]
    logs = [out.with_name(f"{mode}-{rank['RANK']}.log") for rank in ranks]
    workers = []
    for rank, log in zip(ranks, logs, strict=True):
        with log.open("w") as stream:
            workers.append(subprocess.Popen(command, env=os.environ | shared | rank, stderr=stream))
    assert [w.wait(timeout=200) for w in workers] == [0, 0], "\n".join(log.read_text()[-2000:] for log in logs)
    return load_weights_only(list_checkpoints(out)[-1][1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="gloo with two processes is tested on Linux")
def test_ddp_and_fsdp2_agree_and_resume(tmp_path):
    data = write_clips(tmp_path / "data", 8)
    ddp, fsdp2 = launch("ddp", data, tmp_path / "ddp", 3), launch("fsdp2", data, tmp_path / "fsdp2", 3)
    assert ddp.weights.keys() == fsdp2.weights.keys()
    for name in ddp.weights:
        torch.testing.assert_close(ddp.weights[name], fsdp2.weights[name], rtol=0, atol=1e-6)
        torch.testing.assert_close(ddp.ema[name], fsdp2.ema[name], rtol=0, atol=1e-6)
    for mode in ("ddp", "fsdp2"):  # a checkpoint is whole, however it was trained: one process goes on from it
        assert train(tiny_config(data, steps=4, accumulate=2), tmp_path / mode, cpu=True).finished
    one, other = (load_weights_only(list_checkpoints(tmp_path / mode)[-1][1]).weights for mode in ("ddp", "fsdp2"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-6)
