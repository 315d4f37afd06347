"""The golden set: `EX4D_GOLDEN=DIR`, else `../shared/golden/a`, else the small copies kept in `tests/golden/data`.

Another set has the same file names and other sizes, and may lack files: read every size, skip what is missing, print how
many items were checked, and fail when there were none.
"""

import os
from pathlib import Path

import numpy as np
import pytest

OWN_COPIES = Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the golden set."""
    if "EX4D_GOLDEN" in os.environ:
        folder = Path(os.environ["EX4D_GOLDEN"])
        assert folder.is_dir(), f"EX4D_GOLDEN={folder} is not a folder"
        return folder
    shared = Path(os.environ.get("EX4D_SHARED", Path(__file__).parents[3] / "shared"))
    for folder in (shared / "golden" / "a", OWN_COPIES):
        if folder.is_dir():
            return folder
    pytest.skip("no golden set: neither ../shared/golden/a nor tests/golden/data (set EX4D_GOLDEN)")


@pytest.fixture(scope="session")
def load_golden(golden: Path):
    """`load_golden("mesh.npz")`: the arrays of a file of the set, or a skip where the set lacks it."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = golden / name
        if not path.is_file():
            pytest.skip(f"{name} is not in {golden}")
        with np.load(path) as arrays:
            return {key: arrays[key] for key in arrays.files}

    return load
