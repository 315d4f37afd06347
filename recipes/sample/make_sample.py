"""Make the sample clip: a fox crosses a room, bounced at by a ball; the wall it hides shows again once it has passed.

    python recipes/sample/make_sample.py            writes src/ex4d/samples/sample.mp4 and sample_depth.npz
    python recipes/sample/make_sample.py --check    makes them anew beside and compares every byte

Same package versions, same bytes: the encoder runs on one thread, and the archive carries no time stamps.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import zipfile
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from ex4d.geometry.frames import look_at
from ex4d.render.base import Rasterizer
from ex4d.scenes import parts
from ex4d.scenes import textures as tex
from ex4d.scenes.families import Layout
from ex4d.scenes.parts import rotation, translation
from ex4d.scenes.scene import Scene, scene_of
from ex4d.scenes.shading import Light

SIZE_HW, NUM_FRAMES, FPS, SEED = (288, 512), 49, Fraction(24), 7
SAMPLES = Path(__file__).parents[2] / "src" / "ex4d" / "samples"


def flat(color: tuple[float, float, float], contrast: float = 0.25):
    """A texture maker: one colour with soft noise."""

    def make(rng: np.random.Generator) -> np.ndarray:
        return np.array(color, np.float32) * (1 - contrast / 2 + contrast * tex.fbm(rng, 0.9)[..., None])

    return make


def fox(s: Layout) -> None:
    """An orange walker with a white-tipped tail and pointed ears, from left to right in front of the wall."""
    orange, white, dark = (
        s.material((flat(c, 0.35),)) for c in [(0.86, 0.42, 0.12), (0.93, 0.9, 0.85), (0.2, 0.13, 0.1)]
    )
    stride_m, period = 0.62, 12.25  # metres and frames of a full gait
    body_y, length, girth = -0.62, 0.42, 0.17

    def bob(t: float) -> np.ndarray:
        x = -1.6 + stride_m * t / period * 1.35
        heading = np.pi / 2 + 0.25 * np.sin(2 * np.pi * t / 48)
        z = 0.05 * np.sin(2 * np.pi * t / 48)
        return translation(x, body_y + 0.02 * np.sin(4 * np.pi * t / period), z) @ rotation("y", heading)

    s.add(replace(parts.ellipsoid((girth, girth * 1.05, length), 0.4, orange), motion=bob))
    chest = parts.ellipsoid((girth * 0.8, girth * 0.85, girth), 0.4, white).moved(translation(0, 0.05, length * 0.72))
    s.add(replace(chest, motion=bob))
    for k, (x, z) in enumerate([(-1, 1), (1, -1), (1, 1), (-1, -1)]):

        def leg(t: float, k: int = k, x: int = x, z: int = z) -> np.ndarray:
            swing = 0.5 * np.sin(2 * np.pi * t / period + np.pi * (k // 2))
            return bob(t) @ translation(x * girth * 0.55, 0.08, z * length * 0.62) @ rotation("x", swing)

        s.add(replace(parts.capsule(0.42, 0.06, 0.3, orange), motion=leg))
        paw = parts.ellipsoid((0.062, 0.06, 0.085), 0.3, dark).moved(translation(0, 0.44, 0.02))
        s.add(replace(paw, motion=leg))

    def head(t: float) -> np.ndarray:
        return bob(t) @ translation(0, -0.27, length + 0.1) @ rotation("x", 0.12 * np.sin(2 * np.pi * t / period + 1))

    s.add(
        replace(
            parts.rod(np.array([0, -0.05, length * 0.7]), np.array([0, -0.27, length + 0.06]), 0.1, orange), motion=bob
        )
    )
    s.add(replace(parts.ellipsoid((0.16, 0.15, 0.17), 0.4, orange), motion=head))
    muzzle = parts.lathe([(0, -0.02), (0.085, -0.02), (0.035, 0.2), (0, 0.22)], 14, 0.3, white)
    s.add(replace(muzzle.moved(translation(0, 0.05, 0.1) @ rotation("x", np.pi / 2)), motion=head))
    nose = parts.ellipsoid((0.032, 0.03, 0.03), 0.2, dark, rings=8).moved(translation(0, 0.04, 0.32))
    s.add(replace(nose, motion=head))
    for side in (-1, 1):
        ear = parts.lathe([(0.06, 0.0), (0.0, -0.17)], 10, 0.3, orange).moved(translation(side * 0.1, -0.1, -0.02))
        s.add(replace(ear, motion=head))
        eye = parts.ellipsoid((0.022, 0.026, 0.02), 0.2, dark, rings=8).moved(translation(side * 0.1, -0.04, 0.12))
        s.add(replace(eye, motion=head))

    def tail(t: float) -> np.ndarray:
        wag = 0.35 * np.sin(2 * np.pi * t / 16)
        return bob(t) @ translation(0, -0.06, -length * 0.92) @ rotation("y", wag) @ rotation("x", -1.9)

    brush = parts.lathe([(0, 0), (0.05, 0.03), (0.1, 0.22), (0.09, 0.36), (0.075, 0.42)], 14, 0.3, orange)
    tip = parts.lathe([(0.075, 0.42), (0.05, 0.52), (0, 0.58)], 14, 0.3, white)
    s.add([replace(brush, motion=tail), replace(tip, motion=tail)])


def ball(s: Layout) -> None:
    """A spotted ball that bounces the other way, behind the fox."""
    toy = s.material((tex.spots,))

    def motion(t: float) -> np.ndarray:
        hop = 0.75 * abs(np.sin(np.pi * (t + 4) / 16.5))
        return translation(1.15 - 0.05 * t, -0.22 - hop, 0.95) @ rotation("z", -0.16 * t)

    s.add(replace(parts.ellipsoid((0.22, 0.22, 0.22), 0.35, toy), motion=motion))


def room(s: Layout) -> None:
    """A room 7 m wide: boards, a brick wall, a papered wall, pictures, a window, a table, a shelf, plants, a rug."""
    half_x, height, half_z = 4.6, 3.0, 4.6
    s.room_half = np.array([half_x, height, half_z])
    floor, ceiling = s.material((tex.planks,)), s.material((tex.ceiling,))
    brick, paper = s.material((tex.bricks,)), s.material((flat((0.55, 0.7, 0.68), 0.15),))
    shell = parts.box((2 * half_x, height, 2 * half_z), 1.6)
    for k, material in enumerate([paper, paper, ceiling, floor, paper, brick]):
        s.add(replace(shell, faces=shell.faces[2 * k : 2 * k + 2], material=material, casts_shadow=False))
    for x, y, w, h in [(-2.6, -1.25, 0.9, 1.1), (-1.2, -1.45, 0.7, 0.5), (0.9, -1.3, 1.2, 0.8), (2.9, -1.4, 0.7, 0.9)]:
        frame = s.material((tex.planks,))
        s.add(parts.box((w + 0.1, h + 0.1, 0.05), 1.0, frame), translation(x, y + 0.05, half_z - 0.03))
        s.add(parts.box((w, h, 0.06), max(w, h), s.material((tex.poster,))), translation(x, y, half_z - 0.04))
    window = s.material((flat((0.75, 0.88, 1.0), 0.3),), emission=1.3)
    side = rotation("y", np.pi / 2)
    s.add(parts.box((1.8, 1.3, 0.05), 2.0, window), translation(-half_x + 0.03, -1.0, 1.0) @ side)
    s.add(parts.box((1.4, 1.0, 0.06), 1.4, s.material((tex.poster,))), translation(half_x - 0.03, -1.2, 0.6) @ side)
    rug = s.material((tex.plaid,))
    s.add(replace(parts.box((3.4, 0.012, 2.0), 1.7, rug), casts_shadow=False), translation(0, 0, 0.2))
    wood = s.material((tex.planks,))
    table = translation(-1.9, 0, 2.1)
    s.add(parts.box((1.3, 0.06, 0.8), 0.9, wood), table @ translation(0, -0.72, 0))
    for x in (-0.58, 0.58):
        for z in (-0.33, 0.33):
            s.add(parts.box((0.06, 0.72, 0.06), 0.5, wood), table @ translation(x, 0, z))
    clay, green = s.material((flat((0.72, 0.36, 0.24)),)), s.material((tex.grass,))
    for at, r in [(table @ translation(0.2, -0.78, 0), 0.1), (translation(2.35, 0, 1.7), 0.19)]:
        vase = [(0, 0), (r, 0), (r * 1.4, -r * 1.5), (r * 0.6, -r * 3), (r * 0.9, -r * 3.3), (0, -r * 3.2)]
        s.add(parts.lathe(vase, 24, 0.5, clay), at)
        s.add(parts.leaves(s.rng, 70, np.array([0, -r * 5, 0]), 2.2 * r, 0.9 * r, green), at)
    shelf = translation(3.3, 0, 3.9)
    for k in range(5):
        s.add(parts.box((1.5, 0.05, 0.35), 0.8, wood), shelf @ translation(0, -0.1 - 0.42 * k, 0))
    for x in (-0.75, 0.75):
        s.add(parts.box((0.05, 1.85, 0.35), 0.8, wood), shelf @ translation(x, 0, 0))
    for k in range(4):
        x = -0.65
        while x < 0.5:
            w, h = s.rng.uniform(0.04, 0.12), s.rng.uniform(0.18, 0.33)
            s.add(
                parts.box((w, h, 0.2), 0.4, s.material((flat(tuple(tex.palette(s.rng, 1, 0.6, 0.6)[0])),))),
                shelf @ translation(x, -0.15 - 0.42 * k, 0),
            )
            x += w + s.rng.uniform(0.005, 0.08)
    warm = np.array([1.0, 0.93, 0.8], np.float32)
    s.light = Light(
        np.array([-0.6, -2.85, -0.9]),
        0.75 * warm,
        np.array([0.5, 0.53, 0.56], np.float32),
        np.array([-0.3, 0, 0.4]),
        3.6,
    )


def sample_scene() -> Scene:
    """The scene of the sample clip."""
    s = Layout(np.random.Generator(np.random.PCG64(SEED)), NUM_FRAMES, distance_m=3.7, fov_deg=52.0)
    room(s)
    fox(s)
    ball(s)
    s.target = np.array([0.0, -0.58, 0.0])
    pose = look_at(np.array([0.0, -1.5, -3.7]), s.target)
    s.camera = lambda _t: pose
    s.textures.append(np.repeat(tex.fbm(s.rng, 1.4)[..., None], 3, 2))
    return scene_of(s, SEED, "sample", FPS)


def frames(scene: Scene, times: list[int], rasterizer: Rasterizer | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Colour uint8 [T, H, W, 3] (smoothed over 2x2 samples) and depth float16 [T, H, W] of some frames."""
    shown = [scene.source(t, SIZE_HW, rasterizer, supersample=2) for t in times]
    return np.stack([f.color for f in shown]), np.stack([f.depth for f in shown]).astype(np.float16)


def write_video(path: Path, color: np.ndarray) -> None:
    """H.264 in BT.709 limited range on one thread, so that the bytes do not depend on the number of cores."""
    import av
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width, stream.pix_fmt = *SIZE_HW, "yuv420p"
        stream.options = {"crf": "19", "preset": "slow", "threads": "1"}
        context = stream.codec_context
        context.thread_count = 1
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = 1, 1, 1, 1
        flags = (
            Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT
        )
        for i, rgb in enumerate(color):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(
                format="yuv420p",
                interpolation=flags,
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
            frame.pts, frame.time_base = i, 1 / FPS
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_depth(path: Path, depth: np.ndarray, K: np.ndarray) -> None:
    """depth.npz without time stamps, deflated at the highest level."""
    arrays = {"depth": depth, "K": K, "unit": np.array("metric"), "fps": np.array(float(FPS))}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def make(folder: Path) -> list[Path]:
    """Write both files into a folder."""
    scene = sample_scene()
    color, depth = frames(scene, list(range(NUM_FRAMES)))
    paths = [folder / "sample.mp4", folder / "sample_depth.npz"]
    write_video(paths[0], color)
    write_depth(paths[1], depth, scene.intrinsics(SIZE_HW))
    return paths


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with the shipped files instead of writing them")
    if not parser.parse_args().check:
        for path in make(SAMPLES):
            print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        differ = 0
        for path in make(Path(folder)):
            new, old = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (path, SAMPLES / path.name))
            print(f"{path.name}: {'same bytes' if new == old else 'DIFFERS'} ({new[:16]})")
            differ += new != old
    return int(differ > 0)


if __name__ == "__main__":
    raise SystemExit(main())
