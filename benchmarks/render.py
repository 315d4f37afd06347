"""Mesh and render, frame by frame: the released orbits at 512x512, then growth to 2560x1440, against a plain z-buffer.

Every number is the least of several wall times and is printed beside its ratio to the plain z-buffer of `calibrate.py`, timed
between the frames of the same run. moderngl (on whatever OpenGL there is, llvmpipe on a machine without a GPU) and Open3D ray
casting are timed on the same mesh where they are installed, and named where they are not.

    python benchmarks/render.py [--repeats 5] [--every 1] [--write]
"""

from __future__ import annotations

import argparse
import math
import os
from pathlib import Path

import numpy as np
from calibrate import best_ms, best_wall_cpu_ms, bumpy_depth, plain_wall_cpu_ms

from ex4d.geometry.frames import look_at
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.mesh.watertight import build_mesh
from ex4d.render.cpu.rasterizer import CpuRasterizer

FRAMES = 49


def released_pose(cam: int, index: int, radius: float) -> np.ndarray:
    """cam_from_world of the release's orbit (30, 60, 90: an arc; 180: a lateral ellipse), see `cameras/words/moves.py`."""
    a = math.radians(360 if cam == 180 else cam) * index / (FRAMES - 1)
    if cam == 180:
        eye = [radius * math.sin(a), 0.2 * radius * (math.cos(a) - 1), 0]
    else:
        eye = [radius * math.sin(a), 0.2 * radius * (math.cos(a) - 1), radius * (1 - math.cos(a))]
    return look_at(np.array(eye), np.array([0.0, 0.0, radius]))


class Scene:
    """A bumpy depth map with discs in front, its colours and its camera, at any size."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self.size_hw = size_hw
        self.depth = bumpy_depth(size_hw)
        self.color = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
        self.K = intrinsics(size_hw, 500.0 * size_hw[1] / 512)
        self.clip = DepthRange.of(self.depth)
        self.radius = self.clip.near + 0.15

    def frame(self, rasterizer: CpuRasterizer, rule: MeshRule, pose: np.ndarray):
        """One frame, mesh and render."""
        return rasterizer.draw_depth(self.depth, self.color, self.K, rule, self.clip, pose, self.K, self.size_hw)


def orbit_rows(scene: Scene, cams, repeats: int, every: int, rule: MeshRule, name: str) -> list[str]:
    """A table row per orbit: the slowest frame, and the ratios of all frames to the yardstick."""
    rasterizer, rows = CpuRasterizer(), []
    h, w = scene.size_hw
    for cam in cams:
        frames, ratios = [], []
        plain = np.ones(2)
        for index in range(0, FRAMES, every):
            if index % (4 * every) == 0:  # a fresh yardstick: neighbours on the machine come and go
                plain = np.array(plain_wall_cpu_ms(scene.size_hw, repeats))
            pose = released_pose(cam, index, scene.radius)
            frames.append(best_wall_cpu_ms(lambda pose=pose: scene.frame(rasterizer, rule, pose), repeats))
            ratios.append(frames[-1] / plain)
        (wall, cpu), ratio = np.max(frames, axis=0), np.array(ratios)
        rows.append(
            f"| {name} | {w}x{h} | {cam} | {wall:.1f} | {cpu:.1f} | {ratio[:, 0].mean():.2f} | {ratio[:, 0].max():.2f} | "
            f"{ratio[:, 1].mean():.2f} | {ratio[:, 1].max():.2f} |"
        )
        print(rows[-1], flush=True)
    return rows


def other_libraries(scene: Scene, repeats: int) -> list[str]:
    """The same mesh through other renderers, where installed."""
    pose = released_pose(60, FRAMES // 2, scene.radius)
    mesh = build_mesh(scene.depth, scene.color, scene.K, MeshRule(), scene.clip)
    plain = plain_wall_cpu_ms(scene.size_hw, repeats)[0]
    rasterizer = CpuRasterizer()
    times = {
        "cpu, fused (mesh + render)": best_ms(lambda: scene.frame(rasterizer, MeshRule(), pose), repeats),
        "cpu, draw of a built mesh": best_ms(lambda: rasterizer.draw(mesh, pose, scene.K, scene.size_hw), repeats),
    }
    rows = []
    for name, make in (("moderngl", moderngl_draw), ("open3d ray casting", open3d_draw)):
        try:
            times[name] = best_ms(make(mesh, pose, scene), max(2, repeats // 2))
        except ImportError:
            rows.append(f"| {name} | not installed | |")
        except Exception as error:  # no display, no driver: say so and go on
            rows.append(f"| {name} | not usable: {type(error).__name__}: {str(error)[:60]} | |")
    rows = [f"| {name} | {ms:.1f} | {ms / plain:.2f} |" for name, ms in times.items()] + rows
    print("\n".join(rows), flush=True)
    return rows


def moderngl_draw(mesh, pose, scene: Scene):
    """A call that draws the mesh into a framebuffer and reads it back."""
    import moderngl

    from ex4d.render.nvdiffrast import clip_from_cam

    h, w = scene.size_hw
    context = moderngl.create_standalone_context(backend="egl")
    program = context.program(
        vertex_shader="#version 330\nuniform mat4 m; in vec3 p; in vec4 c; out vec4 k;"
        "void main(){gl_Position = m * vec4(p, 1); k = c / 255;}",
        fragment_shader="#version 330\nin vec4 k; out vec4 o; void main(){o = k;}",
    )
    buffers = [(context.buffer(mesh.vertices.tobytes()), "3f", "p"), (context.buffer(mesh.color.tobytes()), "4f", "c")]
    array = context.vertex_array(program, buffers, context.buffer(mesh.faces.tobytes()))
    frame = context.simple_framebuffer((w, h))
    program["m"].write((clip_from_cam(scene.K, scene.size_hw) @ pose).T.astype("f4").tobytes())

    def call():
        frame.use()
        frame.clear()
        context.enable(moderngl.DEPTH_TEST)
        array.render()
        return frame.read(components=4)

    return call


def open3d_draw(mesh, pose, scene: Scene):
    """A call that builds the ray casting scene and casts one ray per pixel: a new mesh comes with every frame."""
    import open3d

    h, w = scene.size_hw
    core = open3d.core

    def call():
        caster = open3d.t.geometry.RaycastingScene(nthreads=2)
        caster.add_triangles(core.Tensor(mesh.vertices), core.Tensor(mesh.faces.astype(np.uint32)))
        rays = caster.create_rays_pinhole(core.Tensor(scene.K.astype(np.float64)), core.Tensor(pose), w, h)
        return caster.cast_rays(rays)["primitive_ids"].numpy()

    return call


def main() -> None:
    """Print the tables; with --write, keep them in results/render.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--every", type=int, default=1, help="time every n-th frame")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    head = [
        "| rule | size | cam | slowest frame, wall ms | CPU ms | mean wall ratio | greatest | mean CPU ratio | greatest |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    print("\n".join(head), flush=True)
    rows = orbit_rows(Scene((512, 512)), (30, 60, 90, 180), args.repeats, args.every, MeshRule(), "default")
    rows += orbit_rows(Scene((512, 512)), (90,), args.repeats, args.every, MeshRule.reference(), "reference")
    for size_hw in ((1024, 1024), (1440, 2560)):
        rows += orbit_rows(Scene(size_hw), (90,), max(2, args.repeats // 2), 4 * args.every, MeshRule(), "default")
    head_other = ["| renderer, 512x512, cam 60, frame 24 | ms | ratio |", "| --- | --- | --- |"]
    print("\n".join(["", *head_other]), flush=True)
    other = other_libraries(Scene((512, 512)), args.repeats)
    if args.write:
        load = f"{os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else "unknown"
        text = (
            "# Mesh and render\n\nMachine: two-core x86-64 CPU, load average "
            f"{load} at the end of the run (above 2, wall times include waiting: read the CPU columns). Ratios are to the plain "
            "z-buffer of `calibrate.py` in the same run, same size, same two threads; CPU time is that of all threads, so that "
            "half of it is the wall time on two idle cores.\n\n"
        )
        path = Path(__file__).parent / "results" / "render.md"
        path.write_text(text + "\n".join([*head, *rows, "", *head_other, *other]) + "\n")


if __name__ == "__main__":
    main()
