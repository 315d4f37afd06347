"""What a job folder promises when nothing crashes: ids, states, attempts, cancel, expiry, replacement, the line itself."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs_made import check_all_published, exit_code, fork, made_job, quick_config, start_worker, wait_for, write_number

from ex4d.errors import InputError
from ex4d.io.video.write import VideoWriter
from ex4d.jobs.beats import BeatWatch, beat
from ex4d.jobs.codec import decode, encode
from ex4d.jobs.events import append_event, read_events
from ex4d.jobs.folder import JobFolder
from ex4d.jobs.keeper import Keeper
from ex4d.jobs.make import decode_config, make_job
from ex4d.jobs.types import Limits, State, Ticket
from ex4d.jobs.worker import REPLACE
from ex4d.pipeline.config import RunConfig
from ex4d.pipeline.run import run_stages


@pytest.fixture
def folder(tmp_path):
    return JobFolder(tmp_path / "jobs", create=True)


def kinds(folder, job):
    return [event.kind for event in folder.events(job.id) if event.kind != "progress"]


def test_the_same_job_is_done_once_whoever_submits_it(folder):
    for number in (1, 2, 1, 1):
        folder.submit(made_job(number))
    assert folder.counts()[State.QUEUED] == 2
    assert exit_code(start_worker(folder.root)) == 0
    assert folder.submit(made_job(1)).state is State.DONE
    check_all_published(folder, [1, 2])
    assert kinds(folder, made_job(1)) == ["submitted", "claimed", "published"]
    assert list(folder.beats.iterdir()) == [], "a worker that ends in order leaves no beat"


def test_three_errors_park_a_job_with_its_error_and_the_next_one_is_done(folder):
    def sometimes(job, out, progress):
        os.write(1, f"working on {job.name}\n".encode())
        if job.config["number"] == 1:
            raise InputError("a clip without frames", "one frame", "another clip")
        return write_number(job, out, progress)

    for number in (1, 2, 3):
        folder.submit(made_job(number))
    assert exit_code(start_worker(folder.root, sometimes)) == 0
    parked = folder.status(made_job(1).id)
    assert (parked.state, parked.errors, parked.lost) == (State.FAILED, 3, 0)
    error = folder.error(parked)
    assert error.kind == "InputError" and error.line.startswith("a clip without frames; need one frame")
    assert "Traceback" in error.detail
    assert kinds(folder, made_job(1)) == ["submitted", *["claimed", "error"] * 2, "claimed", "parked"]
    assert (folder.job_dir(parked.id) / "log.txt").read_text().count("working on clip 1") == 3
    assert folder.counts()[State.DONE] == 2
    assert folder.retry(parked.id) == Ticket(parked.id, State.QUEUED)
    assert exit_code(start_worker(folder.root)) == 0
    check_all_published(folder, [1, 2, 3])


def test_a_job_that_kills_its_worker_each_time_is_parked_as_lost(folder):
    def deadly(job, out, progress):
        os.kill(os.getpid(), signal.SIGKILL)

    folder.submit(made_job(1))
    watch = BeatWatch(folder.beats, 0.0)
    for lost in range(1, 6):
        assert exit_code(start_worker(folder.root, deadly)) == -signal.SIGKILL
        assert folder.sweep(watch) == [], "the first look at a beat says nothing"
        time.sleep(0.01)
        assert len(folder.sweep(watch)) == 1
        assert folder.status(made_job(1).id).lost == lost
    parked = folder.status(made_job(1).id)
    assert parked.state is State.FAILED and parked.errors == 0
    assert folder.error(parked).kind == "Lost" and "5 times" in folder.error(parked).line


def test_a_beat_expires_by_when_it_was_seen_first_and_never_by_a_clock_on_the_disk(tmp_path):
    now = [0.0]
    watch = BeatWatch(tmp_path, 10, clock=lambda: now[0])
    beat(tmp_path, "w")
    os.utime(tmp_path / "w", (1, 1))  # a disk whose clock is decades behind
    assert not watch.is_lost("w")
    now[0] = 10
    assert not watch.is_lost("w")
    os.utime(tmp_path / "w", (9e9, 9e9))  # and then centuries ahead
    now[0] = 11
    assert not watch.is_lost("w")
    now[0] = 21
    assert not watch.is_lost("w")
    now[0] = 21.1
    assert watch.is_lost("w")
    beat(tmp_path, "w")
    assert not watch.is_lost("w")
    assert not watch.is_lost("never came")
    now[0] = 40
    assert watch.is_lost("never came")


def test_cancel_in_the_queue_while_it_runs_and_when_it_is_done(folder, tmp_path):
    begun = tmp_path / "begun"

    def patient(job, out, progress):
        begun.touch()
        while True:
            progress(0, None, "waiting")
            time.sleep(0.01)

    folder.submit(made_job(1))
    assert folder.cancel(made_job(1).id).state is State.CANCELLED
    folder.submit(made_job(2))
    pid = start_worker(folder.root, patient)
    wait_for(begun.exists)
    begin = time.monotonic()
    assert folder.cancel(made_job(2).id).state is State.RUNNING
    assert exit_code(pid) == REPLACE, "after a cancel the worker is replaced"
    assert time.monotonic() - begin < 5
    assert folder.status(made_job(2).id).state is State.CANCELLED
    for number in (1, 2):
        assert folder.retry(made_job(number).id).state is State.QUEUED
    assert exit_code(start_worker(folder.root)) == 0
    assert folder.cancel(made_job(1).id).state is State.DONE
    check_all_published(folder, [1, 2])


def test_a_worker_that_is_told_to_end_puts_its_job_back_and_counts_nothing(folder, tmp_path):
    begun = tmp_path / "begun"

    def patient(job, out, progress):
        begun.touch()
        while True:
            progress(0, None, "waiting")
            time.sleep(0.01)

    folder.submit(made_job(1))
    pid = start_worker(folder.root, patient)
    wait_for(begun.exists)
    os.kill(pid, signal.SIGTERM)
    assert exit_code(pid) == 0
    assert folder.status(made_job(1).id) == Ticket(made_job(1).id, State.QUEUED)


def test_a_job_over_its_time_counts_as_an_error_and_the_worker_is_replaced(folder):
    def endless(job, out, progress):
        while True:
            progress(0, None, "waiting")
            time.sleep(0.01)

    folder.submit(made_job(1))
    assert exit_code(start_worker(folder.root, endless, time_limit_s=0.1)) == REPLACE
    assert folder.status(made_job(1).id).errors == 1


def test_a_worker_is_replaced_after_so_many_jobs(folder):
    for number in range(5):
        folder.submit(made_job(number))
    assert exit_code(start_worker(folder.root, max_jobs=2)) == REPLACE
    assert folder.counts()[State.DONE] == 2


def test_what_an_earlier_claim_finished_is_not_done_again(folder):
    def half(job, out, progress):
        (out / "first.txt").write_text(f"first {job.config['number']}\n")
        (out / ".second.1.tmp.txt").write_text("half")
        raise RuntimeError("no power")

    def rest(job, out, progress):
        assert (out / "first.txt").exists() and not (out / ".second.1.tmp.txt").exists()
        return write_number(job, out, progress)

    folder.submit(made_job(1))
    assert exit_code(start_worker(folder.root, half, max_jobs=1)) == REPLACE
    assert exit_code(start_worker(folder.root, rest)) == 0
    check_all_published(folder, [1])
    assert folder.status(made_job(1).id).errors == 1


SCRIPT = """
import json, os, sys, time
from pathlib import Path
from ex4d.jobs.codec import decode
from ex4d.jobs.worker import WorkerConfig, work
def do(job, out, progress):
    if job.config.get("kills") and not (Path(sys.argv[1]) / "killed").exists():
        (Path(sys.argv[1]) / "killed").touch()
        os.abort()
    while job.config.get("hangs"):
        time.sleep(0.05)
    (out / "result.txt").write_text(f"first {job.config['number']}\\nsecond {job.config['number']}\\n")
    return {}
sys.exit(work(decode(WorkerConfig, json.loads(sys.argv[2])), do, parent=os.getppid()))
"""


def test_the_keeper_replaces_workers_that_end_die_or_hang(folder, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    for number in range(4):
        folder.submit(made_job(number))
    folder.submit(replace(made_job(4), config={"number": 4, "kills": True}))
    folder.submit(replace(made_job(5), config={"number": 5, "hangs": True}))
    command = (sys.executable, str(script), str(tmp_path))
    config = quick_config(folder.root, max_jobs=2)
    config = replace(config, limits=Limits(expiry_s=30.0))  # so that what was lost is known from the dead process alone
    keeper = Keeper([config, config], command, grace_s=0.5)
    cancelled = False
    end = time.monotonic() + 60
    while keeper.look():
        assert time.monotonic() < end
        time.sleep(0.05)
        if not cancelled and folder.status(made_job(5).id).state is State.RUNNING:
            folder.cancel(made_job(5).id)
            cancelled = True
    keeper.stop()
    assert folder.counts() == {**dict.fromkeys(State, 0), State.DONE: 5, State.CANCELLED: 1}
    assert folder.status(made_job(4).id).lost == 1
    assert "SIGABRT" in next(e.data["line"] for e in folder.events(made_job(4).id) if e.kind == "lost")


def test_a_worker_whose_keeper_died_gives_its_job_back_and_ends(folder, tmp_path):
    begun = tmp_path / "begun"

    def patient(job, out, progress):
        begun.write_text(str(os.getpid()))
        time.sleep(60)

    def keeper():
        from ex4d.jobs.worker import work

        parent = os.getpid()
        fork(lambda: work(quick_config(folder.root, until_empty=False), patient, parent=parent))
        wait_for(lambda: begun.exists() and begun.read_text())

    folder.submit(made_job(1))
    assert exit_code(fork(keeper)) == 0
    wait_for(lambda: folder.status(made_job(1).id).state is State.QUEUED)


def test_a_torn_line_of_events_is_passed_over_and_a_line_at_work_is_left_for_later(tmp_path):
    path = tmp_path / "events.jsonl"
    append_event(path, "claimed", "w.0")
    with path.open("a") as stream:
        stream.write('{"kind": "progr')
    first = list(read_events(path))
    assert [event.kind for event in first] == ["claimed"]
    append_event(path, "published", "w.1", seconds={"depth": 1.5})
    assert [(e.kind, dict(e.data)) for e in read_events(path, first[-1].end)] == [
        ("published", {"seconds": {"depth": 1.5}})
    ]


@pytest.mark.parametrize("wrong", ["../../etc/passwd", "ab", "A" * 64, ""])
def test_an_id_names_no_path(folder, wrong):
    with pytest.raises(InputError, match="hexadecimal"):
        folder.status(wrong)


def test_folders_that_hold_no_jobs_or_another_layout_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no jobs"):
        JobFolder(tmp_path)
    (tmp_path / "jobs.json").write_text(json.dumps({"layout": 99}))
    with pytest.raises(InputError, match="layout 99"):
        JobFolder(tmp_path, create=True)


@dataclass(frozen=True)
class Square:
    side: float
    name: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Round:
    file: Path | None
    rate: Fraction
    sizes: tuple[int, ...] = ()
    pair: tuple[int, str] | None = None


@dataclass(frozen=True)
class Holder:
    shape: Square | Round
    more: dict[str, Square]


shapes = st.one_of(
    st.builds(Square, st.floats(-1e9, 1e9), st.sampled_from(["a", "b"])),
    st.builds(
        Round,
        st.none() | st.sampled_from([Path("/a/b"), Path("c d")]),
        st.fractions(),
        st.lists(st.integers()).map(tuple),
        st.none() | st.tuples(st.integers(), st.text()),
    ),
)
squares = st.builds(Square, st.floats(-1e9, 1e9))


@given(st.builds(Holder, shapes, st.dictionaries(st.text(), squares)))
def test_configs_come_back_from_json_as_they_were(holder):
    assert decode(Holder, json.loads(json.dumps(encode(holder)))) == holder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["shape"].update(sid=1), "config.shape.sid"),
        (lambda d: d["shape"].pop("side"), "without side"),
        (lambda d: d["shape"].update(side="1"), "config.shape.side"),
        (lambda d: d["shape"].update(side=True), "config.shape.side"),
        (lambda d: d["shape"].update(name="c"), "'a', 'b'"),
        (lambda d: d["shape"].update(type="Triangle"), "Square or Round"),
        (lambda d: d.update(more=[]), "config.more"),
    ],
)
def test_what_is_no_config_is_refused_with_its_place(change, said):
    data = encode(Holder(Square(1.0), {}))
    change(data)
    with pytest.raises(InputError, match=said):
        decode(Holder, data)


@pytest.fixture
def clip(tmp_path):
    frames = np.random.default_rng(0).integers(0, 255, (5, 32, 48, 3)).astype(np.uint8)
    with VideoWriter(tmp_path / "in.mkv", Fraction(24), lossless=True) as writer:
        writer.write(frames)
    return tmp_path / "in.mkv"


def run_config(**more):
    return RunConfig(
        Path("anywhere"), **{"camera": "orbit:10", "depth": "plane", "preset": "fill", "rasterizer": "cpu", **more}
    )


def test_an_id_is_the_content_wherever_it_lies(clip, tmp_path, monkeypatch):
    job = make_job(clip, run_config())
    moved = tmp_path / "other.mkv"
    moved.write_bytes(clip.read_bytes())
    assert make_job(moved, replace(run_config(), out=Path("/else"))).id == job.id
    assert make_job(clip, run_config(seed=1)).id != job.id
    assert make_job(clip, run_config(camera="orbit:11")).id != job.id
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert make_job(moved, run_config()).id != job.id
    monkeypatch.chdir(tmp_path)
    (tmp_path / "path.json").write_text("{}")
    plain = make_job(clip, run_config(camera="path.json"))
    slow = make_job(clip, run_config(camera="path.json @ slow=0.5"))
    assert plain.id != slow.id
    assert decode_config(slow.config, Path("o")).camera == f"{tmp_path}/path.json @ slow=0.5"
    (tmp_path / "path.json").write_text("[]")
    assert make_job(clip, run_config(camera="path.json")).id != plain.id


@pytest.mark.slow
def test_a_worker_process_runs_the_line_and_its_bytes_are_those_of_a_plain_run(folder, clip, tmp_path):
    job = make_job(clip, run_config(), name="clip")
    folder.submit(job)
    config = replace(quick_config(folder.root), limits=Limits(expiry_s=30.0), beat_s=0.5)
    Keeper([config]).run()
    assert folder.status(job.id).state is State.DONE, folder.error(folder.status(job.id))
    out = folder.result(job.id)
    assert out == folder.job_dir(job.id) / "out"
    run_stages(clip, replace(run_config(), out=tmp_path / "plain"))
    assert (out / "output.mp4").read_bytes() == (tmp_path / "plain" / "output.mp4").read_bytes()
    published = [event for event in folder.events(job.id) if event.kind == "published"]
    assert len(published) == 1 and set(published[0].data["seconds"]) == {"depth", "render", "generate"}
    again = run_stages(clip, decode_config(job.config, out))
    assert set(again.seconds.values()) == {0.0}, "the published folder goes on as any folder of a run"
