"""Jobs survive whatever happens to their workers: killed at every step, stopped past the expiry, at random."""

import os
import random
import signal
import time

import pytest
from jobs_made import (
    check_all_published,
    die_at,
    exit_code,
    expected,
    fork,
    made_job,
    quick_config,
    start_worker,
    wait_for,
    write_number,
)

from ex4d.jobs.folder import JobFolder
from ex4d.jobs.types import Limits, State
from ex4d.jobs.worker import WorkerConfig, work, worker_name


def readable(folder: JobFolder) -> None:
    """Whatever lies there can be read: states, jobs, events."""
    for ticket in folder.jobs():
        assert folder.job(ticket.id).id == ticket.id
        list(folder.events(ticket.id))
        folder.progress(ticket.id)
    folder.counts()


def test_a_worker_killed_before_any_step_loses_no_job_and_doubles_none(tmp_path):
    step, killed = 0, True
    while killed:
        root = tmp_path / str(step)
        folder = JobFolder(root, create=True)
        folder.submit(made_job(step))

        def die(root=root, step=step):
            die_at(step, root)
            return work(quick_config(root), write_number)

        killed = exit_code(fork(die)) == -signal.SIGKILL
        readable(folder)
        assert sum(folder.counts().values()) == 1
        assert exit_code(start_worker(root)) == 0
        check_all_published(folder, [step])
        step += 1
    assert step > 20


def test_a_submitter_killed_before_any_step_can_submit_again(tmp_path):
    step, killed = 0, True
    while killed:
        root = tmp_path / str(step)
        folder = JobFolder(root, create=True)

        def die(folder=folder, step=step):
            die_at(step, folder.root)
            folder.submit(made_job(step))

        killed = exit_code(fork(die)) == -signal.SIGKILL
        readable(folder)
        repaired = folder.repair()
        assert sum(folder.counts().values()) <= 1
        if repaired:
            assert folder.status(made_job(step).id).state is State.QUEUED
        folder.submit(made_job(step))
        assert folder.counts()[State.QUEUED] == 1
        assert exit_code(start_worker(root)) == 0
        check_all_published(folder, [step])
        step += 1
    assert step > 8


def test_a_worker_stopped_past_its_expiry_publishes_nothing_when_it_goes_on(tmp_path):
    folder = JobFolder(tmp_path / "jobs", create=True)
    job = made_job(7)
    folder.submit(job)
    begun, go = tmp_path / "begun", tmp_path / "go"

    def late(job, out, progress):
        begun.touch()
        wait_for(go.exists)
        (out / "result.txt").write_text("late\n")
        (out / "late.txt").write_text("late\n")
        return {}

    pid = start_worker(folder.root, late, until_empty=False)
    wait_for(begun.exists)
    os.kill(pid, signal.SIGSTOP)
    assert exit_code(start_worker(folder.root)) == 0
    check_all_published(folder, [7])
    done = folder.status(job.id)
    assert done.lost == 1 and done.errors == 0
    go.touch()
    os.kill(pid, signal.SIGCONT)
    time.sleep(1.5)
    os.kill(pid, signal.SIGTERM)
    assert exit_code(pid) == 0
    check_all_published(folder, [7])
    assert folder.status(job.id) == done
    out = folder.result(job.id)
    assert (out / "result.txt").read_text() == expected(7) and not (out / "late.txt").exists()


@pytest.mark.parametrize("seed", [0, 1])
def test_workers_killed_at_random_lose_no_job_and_publish_none_twice(tmp_path, seed):
    rng = random.Random(seed)
    folder = JobFolder(tmp_path, create=True)
    for number in range(40):
        folder.submit(made_job(number))

    def slow(job, out, progress):
        said = write_number(job, out, progress)
        time.sleep(0.03)
        return said

    def start():
        limits = Limits(expiry_s=0.4, max_lost=1000)
        config = WorkerConfig(tmp_path, worker_name(), limits, beat_s=0.1, poll_s=0.05, until_empty=True)
        return fork(lambda: work(config, slow))

    pids, seen = [start() for _ in range(3)], {}
    for _ in range(14):
        time.sleep(rng.uniform(0.0, 0.15))
        victim = rng.randrange(3)
        os.kill(pids[victim], signal.SIGKILL)
        exit_code(pids[victim])
        pids[victim] = start()
        for ticket in folder.jobs(State.DONE):
            assert seen.setdefault(ticket.id, ticket) == ticket, "published by two claims"
    assert [exit_code(pid) for pid in pids] == [0, 0, 0]
    check_all_published(folder, range(40))
    assert all(folder.status(job_id) == ticket for job_id, ticket in seen.items())
    assert all(folder.status(made_job(n).id).errors == 0 for n in range(40))
