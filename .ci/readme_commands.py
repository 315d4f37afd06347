"""Runs the commands of README.md as they stand there: every line of its ```sh blocks, in order, stopping at the first failure.

Lines that begin with `python3 start.py test` are left to `.ci/run`, which runs them itself; blocks of another language
(```console, ```text) show what needs weights, a GPU or the reader's own files.
"""

import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def commands(text: str) -> list[str]:
    """The lines of the ```sh blocks, comments dropped."""
    blocks = re.findall(r"^```sh\n(.*?)^```", text, flags=re.M | re.S)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def main() -> int:
    for command in commands((ROOT / "README.md").read_text(encoding="utf-8")):
        if command.startswith(("python3 start.py test", "git clone", "cd ")):
            continue
        print(f"+ {command}", flush=True)
        begin = time.monotonic()
        code = subprocess.run(command, shell=True, cwd=ROOT).returncode
        print(f"  {time.monotonic() - begin:.1f} s", flush=True)
        if code:
            print(f"exit code {code}: {command}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
