"""The Depth Watertight Mesh of one frame: how much of it is hidden surface, and as a file for other tools.

python examples/02_look_at_the_mesh.py
"""

from pathlib import Path

from ex4d.io.depth.file import read_depth
from ex4d.io.mesh import write_glb
from ex4d.io.video.read import read_video
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.samples import depth_path, video_path


def main() -> None:
    video, depth = read_video(video_path(), frames=1), read_depth(depth_path())
    for name, rule in (("default", MeshRule()), ("as released", MeshRule.reference())):
        mesh = build_mesh(depth.depth[0], video.frames[0], depth.K[0], rule, DepthRange.of(depth.depth))
        print(f"{name}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces, {(~mesh.visible).sum()} of them hidden")
    out = Path("out") / "example_02.glb"
    out.parent.mkdir(exist_ok=True)
    write_glb(out, build_mesh(depth.depth[0], video.frames[0], depth.K[0], MeshRule(), DepthRange.of(depth.depth)))
    print(out)


if __name__ == "__main__":
    main()
