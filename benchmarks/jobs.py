"""What does the job folder cost, and do two workers do twice the work?

    python benchmarks/jobs.py [--waiting N] [--only claims|empty|workers]

claims: N jobs wait (100,000 by default), 4 processes claim 5,000 of them; claims a second and the memory of a driver that counts
them. empty: 200 jobs that write one small file, from claim to published, in one worker. workers: jobs of about 5 s of `fill` on
the sample, all by one worker of one thread, and by two of one thread each, both warm. The machine should be quiet: its load is
printed.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import psutil

from ex4d.jobs.claims import Claimer
from ex4d.jobs.folder import JobFolder
from ex4d.jobs.keeper import Keeper
from ex4d.jobs.types import Job, Limits, State
from ex4d.jobs.worker import WorkerConfig, work, worker_name

PROCESSES, CLAIMS, EMPTY = 4, 5000, 200

#: Jobs of the workers' comparison, beside one each that only warms up.
REAL = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--only", choices=["claims", "empty", "workers"])
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n\n| measure | value |\n| --- | ---: |", flush=True)
    with tempfile.TemporaryDirectory() as root:
        if options.only in (None, "claims"):
            claims(Path(root) / "claims", options.waiting)
        if options.only in (None, "empty"):
            empty(Path(root) / "empty")
        if options.only in (None, "workers"):
            workers(Path(root))


def row(what: str, value: str) -> None:
    print(f"| {what} | {value} |", flush=True)


def made_job(number: int) -> Job:
    return Job(f"{number * 2654435761 % 2**32:08x}{number:08x}", {"number": number}, {"video": "/clips/clip.mp4"})


def claims(root: Path, waiting: int) -> None:
    folder = JobFolder(root, create=True)
    begin = time.perf_counter()
    for number in range(waiting):
        folder.submit(made_job(number))
    row(f"submit, ms a job ({waiting:,} jobs)", f"{1000 * (time.perf_counter() - begin) / waiting:.2f}")
    driver = "import sys, time, psutil, pathlib; from ex4d.jobs.folder import JobFolder; f = JobFolder(pathlib.Path(sys.argv[1]));"
    driver += "b = time.perf_counter(); f.counts(); t = time.perf_counter() - b; m = psutil.Process().memory_info()"
    driver += "; print(f'{t:.2f} {m.rss / 1e6:.0f}')"
    said = subprocess.run([sys.executable, "-c", driver, str(root)], capture_output=True, text=True, check=True)
    seconds, megabytes = said.stdout.split()
    row(f"count {waiting:,} jobs, s", seconds)
    row("memory of the driver, MB", megabytes)
    context = get_context("fork")
    begin_together = context.Event()
    processes = [
        context.Process(target=claim_some, args=(root, CLAIMS // PROCESSES, begin_together)) for _ in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    time.sleep(1)
    begin = time.perf_counter()
    begin_together.set()
    for process in processes:
        process.join()
    took = time.perf_counter() - begin
    assert folder.counts()[State.RUNNING] == CLAIMS // PROCESSES * PROCESSES
    row(f"claims a second ({PROCESSES} processes, job read, folder made, event written)", f"{CLAIMS / took:.0f}")


def claim_some(root: Path, count: int, begin_together) -> None:
    folder, name = JobFolder(root), worker_name()
    claimer = Claimer(folder.tickets, name, random.Random(name))
    begin_together.wait()
    for _ in range(count):
        ticket = claimer.next()
        assert ticket is not None and folder.begin(ticket) is not None


def empty(root: Path) -> None:
    folder = JobFolder(root, create=True)
    for number in range(EMPTY):
        folder.submit(made_job(number))

    def write(job: Job, out: Path, progress) -> dict[str, object]:
        (out / "result.txt").write_text("done\n")
        return {}

    begin = time.perf_counter()
    work(WorkerConfig(root, worker_name(), until_empty=True, max_jobs=EMPTY), write)
    whole_ms = 1000 * (time.perf_counter() - begin) / EMPTY
    spans = []
    for ticket in folder.jobs(State.DONE):
        times = {event.kind: event.time_s for event in folder.events(ticket.id)}
        spans.append(1000 * (times["published"] - times["claimed"]))
    assert len(spans) == EMPTY
    row(
        f"{EMPTY} empty jobs, ms each from claim to published (median, largest)",
        f"{statistics.median(spans):.1f}, {max(spans):.1f}",
    )
    row("the same, all that a worker does, ms a job", f"{whole_ms:.1f}")


def workers(root: Path) -> None:
    from ex4d import samples
    from ex4d.jobs.make import make_job
    from ex4d.pipeline.config import RunConfig

    def run(count: int) -> tuple[float, float]:
        """Seconds from the first claim of a warm worker to the last result, and the mean seconds a job."""
        place = root / f"workers{count}"
        folder = JobFolder(place, create=True)
        config = WorkerConfig(place, "w", Limits(expiry_s=120), until_empty=False)
        keeper = Keeper([replace(config, cores=(core,)) for core in range(count)])
        options = RunConfig(Path("out"), depth="plane", preset="fill", rasterizer="cpu", frames=40)
        warming = [make_job(samples.video_path(), replace(options, seed=k, frames=5)) for k in range(4 * count)]
        jobs = [make_job(samples.video_path(), replace(options, camera=f"orbit:{20 + k}")) for k in range(REAL)]
        for job in warming:
            folder.submit(job)
        while folder.counts()[State.DONE] < len(warming):
            keeper.look()
            time.sleep(0.1)
        for job in jobs:
            folder.submit(job)
        while folder.counts()[State.DONE] < len(warming) + REAL:
            keeper.look()
            time.sleep(0.1)
        keeper.stop()
        spans = [{e.kind: e.time_s for e in folder.events(job.id)} for job in jobs]
        took = max(s["published"] for s in spans) - min(s["claimed"] for s in spans)
        return took, statistics.mean(s["published"] - s["claimed"] for s in spans)

    one, each = run(1)
    two, _ = run(2)
    row(f"{REAL} jobs, s, by one worker of one thread ({each:.1f} s a job)", f"{one:.1f}")
    row("the same by two workers of one thread", f"{two:.1f}")
    row("one over two", f"{one / two:.2f}")
    row("load at the end, processes", f"{psutil.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
