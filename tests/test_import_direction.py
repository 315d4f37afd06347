"""Rules 1 and 3 of the shape: a stage imports no other stage, and the line never imports what stands beside it."""

import ast
from pathlib import Path

import pytest

import ex4d

ROOT = Path(ex4d.__file__).parent
STAGES = {"io", "depth", "mesh", "cameras", "render", "conditioning", "generators"}
BESIDE = {"train", "evaluate", "studio", "batch", "cli"}
#: part -> parts it may import besides `types`, `errors`, `geometry` and itself
ALLOWED = {
    "generators": {"conditioning", "models"},
    "depth": {"models"},
    "train": STAGES | {"models", "pipeline", "preview", "evaluate"},
}


def imported_parts(path: Path) -> set[str]:
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        parts |= {name.split(".")[1] for name in names if name.startswith("ex4d.") and name.count(".")}
    return {part for part in parts if (ROOT / part).is_dir() or (ROOT / f"{part}.py").is_file()}


@pytest.mark.parametrize("stage", sorted(STAGES | {"models"}))
def test_a_stage_imports_no_other_stage(stage):
    allowed = {"types", "errors", "geometry", stage} | ALLOWED.get(stage, set())
    for path in (ROOT / stage).rglob("*.py"):
        extra = imported_parts(path) - allowed
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"


def test_the_line_does_not_import_what_stands_beside_it():
    for path in [
        *(p for p in ROOT.glob("*.py") if p.name != "__main__.py"),
        *(p for stage in STAGES for p in (ROOT / stage).rglob("*.py")),
    ]:
        extra = imported_parts(path) & BESIDE
        assert not extra, f"{path.relative_to(ROOT)} imports {sorted(extra)}"
