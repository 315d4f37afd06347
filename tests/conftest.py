"""Shared fixtures. Tests that read `../shared` skip cleanly where it is absent."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    # GPU kernels are tested in Triton's interpreter, which must be chosen before anything imports triton.
    os.environ.setdefault("TRITON_INTERPRET", "1")

#: The same examples in every run, so that a red test stays red; EX4D_EXPLORE=1 draws new ones.
settings.register_profile("same", derandomize=True, deadline=None)  # a loaded machine is not a wrong result
if not os.environ.get("EX4D_EXPLORE"):
    settings.load_profile("same")

SHARED = Path(os.environ.get("EX4D_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data; the test skips without it."""
    if not SHARED.is_dir():
        pytest.skip(f"reference data not found at {SHARED} (set EX4D_SHARED)")
    return SHARED


def pytest_collection_modifyitems(items):
    gpu_items = [item for item in items if "gpu" in item.keywords]
    if gpu_items and not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
