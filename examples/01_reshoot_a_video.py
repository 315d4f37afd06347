"""The whole line in memory: a video and its depth in, the same scene along an orbit out.

python examples/01_reshoot_a_video.py
"""

from pathlib import Path

import ex4d
from ex4d.io.depth.file import read_depth
from ex4d.io.video.read import VideoWriter, read_video
from ex4d.samples import depth_path, video_path
from ex4d.types import DepthClip, VideoClip

FRAMES = 9


def main() -> None:
    video = read_video(video_path())
    depth = read_depth(depth_path())
    video = VideoClip(video.frames[:FRAMES], video.fps)
    depth = DepthClip(depth.depth[:FRAMES], depth.K[:FRAMES], depth.unit)

    render = ex4d.reconstruct(video, depth, "orbit:yaw=25,pitch=5")
    print(f"seen from the new camera: {render.mask.mean(axis=(1, 2)).round(2)}")

    finished = ex4d.generate(render)  # the embedded model where the package has it, else the classical fill
    out = Path("out") / "example_01.mp4"
    out.parent.mkdir(exist_ok=True)
    with VideoWriter(out, finished.fps) as writer:
        writer.write(finished.frames)
    print(out)


if __name__ == "__main__":
    main()
