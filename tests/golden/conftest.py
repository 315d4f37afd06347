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


_USES_GOLDEN: set[str] = set()
_OUTCOMES = {"passed": 0, "failed": 0, "skipped": 0}


def pytest_collection_modifyitems(items):
    _USES_GOLDEN.update(item.nodeid for item in items if "golden" in getattr(item, "fixturenames", ()))


def pytest_runtest_logreport(report):
    if report.nodeid in _USES_GOLDEN and (report.when == "call" or report.skipped):
        _OUTCOMES[report.outcome] += 1


def pytest_terminal_summary(terminalreporter):
    if _USES_GOLDEN:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in _OUTCOMES.items())
        terminalreporter.write_line(f"golden checks on {os.environ.get('EX4D_GOLDEN', 'the default set')}: {counts}")


def pytest_sessionfinish(session, exitstatus):
    """A named set on which nothing was checked is a failure, not a row of skips."""
    if "EX4D_GOLDEN" in os.environ and _USES_GOLDEN and not (_OUTCOMES["passed"] or _OUTCOMES["failed"]):
        if not session.config.option.collectonly:
            session.exitstatus = 1
