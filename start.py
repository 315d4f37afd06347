"""Set ex4d up in a folder of its own (.venv beside this file) and use it. Needs Python 3.11 or newer, nothing else.

    python3 start.py run                set up, then re-shoot the sample clip into out/sample
    python3 start.py run VIDEO ...      set up, then `ex4d run VIDEO ...`
    python3 start.py test [ARGS ...]    set up with the test tools, then run the tests
    python3 start.py install [--test]   only set up

Everything goes through pip, so its own configuration (mirrors, proxies, constraints) holds. Where there is no NVIDIA GPU
the small CPU build of torch is installed first: the one pip's configuration offers, else the one of PyTorch's CPU index.
A second call finds everything in place, in no time and without a network.
"""

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "ex4d-setup.json"

OLDEST_PYTHON = (3, 11)
TORCH_CPU = "torch==2.13.0"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SAMPLES = ROOT / "src" / "ex4d" / "samples"


def main(argv):
    if sys.version_info < OLDEST_PYTHON:
        return stop(f"got Python {platform.python_version()}; need 3.11 or newer; try: python3.11 start.py")
    command, args = (argv[0] if argv else ""), argv[1:]
    if command == "install" and args in ([], ["--test"]):
        return install(test=bool(args))
    if command == "run":
        return install() or call(PYTHON, "-m", "ex4d", "run", *(args or sample_arguments()))
    if command == "test":
        return install(test=True) or call(PYTHON, "-m", "pytest", *args, cwd=ROOT)
    print(__doc__)
    return 0 if command in ("", "-h", "--help", "help") else 2


def sample_arguments():
    """The main job on the clip that comes with the package."""
    video, depth = SAMPLES / "sample.mp4", SAMPLES / "sample_depth.npz"
    return [video, "--depth", depth, "--camera", "orbit:40", "--out", ROOT / "out" / "sample"]


def install(test=False):
    """Make .venv hold the package; 0 when it does. `test` adds the [dev] extra."""
    gpu = has_nvidia_gpu()
    # What was installed for other requirements, another Python, another place or another machine is installed again.
    key = hashlib.sha256(
        (ROOT / "pyproject.toml").read_bytes() + repr((sys.version, str(ROOT), gpu)).encode()
    ).hexdigest()
    done = read_stamp()
    if done.get("key") == key and (done.get("test") or not test) and PYTHON.exists():
        return 0
    print(f"start.py: setting up {VENV} ({'with an NVIDIA GPU' if gpu else 'for the CPU'})", flush=True)
    if not works(PYTHON):
        shutil.rmtree(VENV, ignore_errors=True)
        if call(sys.executable, "-m", "venv", VENV):
            return stop(
                "python -m venv failed; need venv and ensurepip; try: apt install python3-venv (Debian, Ubuntu)"
            )
    failed = (not gpu and platform.system() != "Darwin" and install_cpu_torch()) or pip(
        "install", "-e", f"{ROOT}[dev]" if test else ROOT
    )
    if failed:
        return stop(
            "pip could not install the package (its message is above); need a package index; then run this again"
        )
    STAMP.write_text(json.dumps({"key": key, "test": test}))
    return 0


def install_cpu_torch():
    """The CPU build, from the nearest place that has it; the default build, which is large, where none has. 0 when done."""
    if subprocess.run([str(PYTHON), "-c", "import torch"], capture_output=True).returncode == 0:
        return 0
    if offered(TORCH_CPU + "+cpu"):
        return pip("install", TORCH_CPU + "+cpu")
    index = ("--extra-index-url", TORCH_CPU_INDEX, "--retries", "1", "--timeout", "20")
    if offered(TORCH_CPU + "+cpu", *index):
        return pip("install", TORCH_CPU + "+cpu", "--extra-index-url", TORCH_CPU_INDEX)
    print("start.py: no CPU build of torch within reach; taking the default one, which is larger", flush=True)
    return pip("install", TORCH_CPU)


def offered(requirement, *options):
    """Whether pip finds a wheel for a requirement; nothing is installed."""
    command = [str(PYTHON), "-m", "pip", "install", "--dry-run", "--no-deps", "--quiet", *options, requirement]
    return subprocess.run(command, capture_output=True).returncode == 0


def has_nvidia_gpu():
    """Whether the driver of an NVIDIA GPU answers."""
    if Path("/proc/driver/nvidia/version").exists():
        return True
    tool = shutil.which("nvidia-smi")
    return bool(tool) and subprocess.run([tool, "-L"], capture_output=True).returncode == 0


def read_stamp():
    try:
        return json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}


def works(python):
    return (
        python.exists() and subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def pip(*args):
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    return call(PYTHON, "-m", "pip", "--disable-pip-version-check", *quiet, *args)


def call(*command, cwd=None):
    return subprocess.call([str(part) for part in command], cwd=cwd)


def stop(message):
    print("start.py: " + message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
