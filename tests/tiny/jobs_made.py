"""Job folders and worker processes for tests: jobs that write one small file, in processes that may be killed at any step."""

import os
import signal
import sys
import time
from pathlib import Path

from ex4d.jobs.folder import JobFolder
from ex4d.jobs.types import Job, Limits, State
from ex4d.jobs.worker import WorkerConfig, work, worker_name

QUICK = Limits(expiry_s=0.3)


def made_job(number: int, **config) -> Job:
    return Job(
        f"{number * 2654435761 % 2**32:08x}{number:08x}",
        {"number": number, **config},
        {"video": "/clip.mp4"},
        f"clip {number}",
    )


def write_number(job, out, progress):
    """What a job of these tests does, in two stages, the second of which needs the first."""
    first = out / "first.txt"
    if not first.exists():
        temporary = out / ".first.tmp.txt"
        temporary.write_text(f"first {job.config['number']}\n")
        temporary.rename(first)
    progress(1, 2, "first")
    (out / "result.txt").write_text(first.read_text() + f"second {job.config['number']}\n")
    progress(2, 2, "second")
    return {"stages": 2}


def expected(number: int) -> str:
    return f"first {number}\nsecond {number}\n"


def quick_config(root: Path, **more) -> WorkerConfig:
    return WorkerConfig(root, worker_name(), QUICK, **{"beat_s": 0.1, "poll_s": 0.05, "until_empty": True, **more})


def fork(function) -> int:
    """Run it in a process of its own, which leaves with its return value; the process's number."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = function() or 0
        finally:
            os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def start_worker(root: Path, do=write_number, **more) -> int:
    return fork(lambda: work(quick_config(root, **more), do))


def die_at(step: int, root: Path) -> None:
    """Kill this process before the step-th time that it touches a file of the folder (0: the first)."""
    left = [step]

    def look(event: str, args: tuple) -> None:
        if event in _TOUCHES and any(os.fspath(root) in str(arg) for arg in args if isinstance(arg, (str, Path))):
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(look)


_TOUCHES = {
    "open",
    "os.rename",
    "os.mkdir",
    "os.rmdir",
    "os.remove",
    "os.utime",
    "os.link",
    "shutil.rmtree",
    "os.listdir",
}


def wait_for(condition, seconds: float = 20.0):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)
    return found


def check_all_published(folder: JobFolder, numbers) -> None:
    """Every job has one ticket, in done; its result is that of a serial run; it was published once."""
    tickets = list(folder.jobs())
    assert {t.state for t in tickets} == {State.DONE}
    assert sorted(t.id for t in tickets) == sorted(made_job(n).id for n in numbers)
    for number in numbers:
        job = made_job(number)
        out = folder.result(job.id)
        assert out is not None and (out / "result.txt").read_text() == expected(number)
        assert sum(e.kind == "published" for e in folder.events(job.id)) <= 1
