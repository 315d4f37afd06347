"""`import ex4d` and `ex4d --help` load neither torch nor diffusers nor numba."""

import subprocess
import sys

HEAVY = {"torch", "diffusers", "transformers", "numba", "av", "cv2", "ray"}


def loaded_by(code: str) -> set[str]:
    script = f"{code}; import sys; print('LOADED', *sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return set(out.rsplit("LOADED", 1)[1].split())


def test_bare_import_is_light():
    assert not loaded_by("import ex4d, ex4d.types") & HEAVY


def test_help_is_light():
    assert not loaded_by("from ex4d.cli.main import main; main(['--help'])") & HEAVY
