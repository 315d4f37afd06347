"""Run under two gloo processes by test_wan_kernels.py: one exchange of packed heads against one process."""

import sys

import torch
import torch.distributed as dist
from test_wan_kernels import CONFIG, sample
from wan_tiny import tiny_transformer

from ex4d.models.wan.fast.parallel import ParallelLayout, init_distributed, parallelise
from ex4d.models.wan.fast.streaming import compile_blocks
from ex4d.models.wan.files.loading import LoadPolicy, build_transformer

torch.accelerator.device_count = lambda: 1  # diffusers divides by it, also without an accelerator
rank, world = init_distributed()
source = tiny_transformer(**CONFIG)
tensors = [(name, p.clone()) for name, p in source.named_parameters()]
errors = []
for quantise in (None, "fp8"):
    model = build_transformer(CONFIG, tensors, LoadPolicy("cpu", dtype=torch.bfloat16, quantise=quantise))
    with torch.no_grad():
        model.fuse_kernels_("cpu")
        one = model(**sample(), return_dict=False)[0]
        compile_blocks(model, fullgraph=True, backend="aot_eager")
        assert parallelise(model, ParallelLayout(1, world), "cpu") is None
        assert all(block.exchange[1] == world for block in model.blocks)
        both = model(**sample(), return_dict=False)[0]
    errors.append(float((both - one).norm() / one.norm()))
dist.barrier()
dist.destroy_process_group()
print("difference", *errors)
sys.exit(0 if max(errors) == 0 else 1)
