"""How much memory does reading a long video take, and how fast is it?

    python benchmarks/video.py [VIDEO]      any H.264 clip; default: the sample

A clip of 3,000 frames is made by repeating the packets of VIDEO (nothing is encoded), then streamed in chunks of 16. Prints the
resident memory as it goes and the time over that of PyAV's bare decoding of the same file, measured in the same run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import av
import psutil

from ex4d import samples
from ex4d.io.video.read import open_video

FRAMES, CHUNK = 3000, 16


def main() -> None:
    video = Path(sys.argv[1]) if len(sys.argv) > 1 else samples.video_path()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.mp4"
        repeat(video, path)
        source = open_video(path, frames=FRAMES)
        begin = time.perf_counter()
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            for _ in zip(range(FRAMES), container.decode(video=0), strict=False):
                pass
        bare_s = time.perf_counter() - begin
        process, marks, done = psutil.Process(), [], 0
        begin = time.perf_counter()
        for chunk in source.chunks(CHUNK):
            done += len(chunk)
            marks.append((done, process.memory_info().rss / 1e6))
        read_s = time.perf_counter() - begin
    print(f"{done} frames of {source.size_hw[1]}x{source.size_hw[0]}; chunks of {CHUNK}")
    print("| frames read | resident memory, MB |\n| ---: | ---: |")
    for index in range(len(marks) // 6 - 1, len(marks), len(marks) // 6):
        print(f"| {marks[index][0]} | {marks[index][1]:.0f} |")
    print(f"reading as RGB / bare decoding: {read_s / bare_s:.2f} ({1000 * read_s / done:.1f} ms a frame)")


def repeat(video: Path, path: Path) -> None:
    """FRAMES frames or more, by copying the packets of a clip again and again."""
    with av.open(str(path), "w") as out:
        target, offset, count = None, 0, 0
        while count < FRAMES:
            with av.open(str(video)) as container:
                stream = container.streams.video[0]
                target = target or out.add_stream_from_template(stream)
                end = 0
                for packet in container.demux(stream):
                    if packet.pts is None or packet.dts is None or not packet.size:
                        continue
                    end, count = max(end, packet.pts + (packet.duration or 0)), count + 1
                    packet.pts, packet.dts, packet.stream = packet.pts + offset, packet.dts + offset, target
                    out.mux(packet)
            offset += end


if __name__ == "__main__":
    main()
