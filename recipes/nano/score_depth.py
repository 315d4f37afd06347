"""Score depth weights on rendered held-out scenes and on a real RGB-D clip, one scale and shift for the whole clip.

    python recipes/nano/score_depth.py runs/depth/depth --seeds 1000000:1000012 --rgbd RGBD --strip strip.png

The guess is fitted to the truth once a clip, by least squares of the relative error: in depth (s * guess + t) and in disparity; both are
printed, and which one is better. Next to it a mere ramp from the bottom to the top. --rgbd is a folder of `*.color.jpg` and `*.depth.png`
(16 bits, millimetres, 0 and 65535: unknown).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: A pixel counts when its true depth lies in here, metres; beyond the first, of rendered scenes, it is held at it (sky).
FARTHEST_RENDERED, RGBD_RANGE = 60.0, (0.1, 10.0)


def fitted(disparity: Tensor, depth: Tensor, domain: str) -> Tensor:
    """Depth [N] after one scale and shift of the guess, least squares of the relative error.

    Args:
        disparity: Guess > 0 [N].
        depth: Truth, metres [N].
        domain: "depth" (s / disparity + t) or "disparity" (1 / (s * disparity + t)).
    """
    z, d = depth.double(), disparity.double()
    low, high = float(z.min()) / 4, float(z.max()) * 4
    basis = torch.stack([1 / (d * z), 1 / z], 1) if domain == "depth" else torch.stack([d * z, z], 1)
    basis_size = basis.norm(dim=0)
    basis = basis / basis_size
    # not `solve`: a guess that is the same everywhere has the shift's column twice
    fit = torch.linalg.pinv(basis.T @ basis, hermitian=True) @ basis.sum(0) / basis_size
    if domain == "depth":
        return (fit[0] / d + fit[1]).clamp(low, high)
    return 1 / (fit[0] * d + fit[1]).clamp(1 / high, 1 / low)


def errors(disparity: Tensor, depth: Tensor, domain: str) -> dict[str, float]:
    """AbsRel and delta1 (share of pixels within a factor of 1.25) of one clip, over the pixels given."""
    z, guess = depth.double(), fitted(disparity, depth, domain)
    ratio = torch.maximum(guess / z, z / guess)
    return {"abs_rel": float(((guess - z).abs() / z).mean()), "delta1": float((ratio < 1.25).double().mean())}


def summary(disparity: Tensor, depth: Tensor) -> dict[str, dict[str, float] | str]:
    """Both fits and the name of the better."""
    both = {domain: errors(disparity, depth, domain) for domain in ("depth", "disparity")}
    return both | {"better": min(both, key=lambda k: both[k]["abs_rel"])}


def ramp(size: tuple[int, ...], device: str | torch.device = "cpu") -> Tensor:
    """Disparity that only grows from the top to the bottom [T, H, W]."""
    return torch.linspace(0.05, 1, size[-2], device=device)[:, None].expand(size)


def load(folder: Path) -> torch.nn.Module:
    from ex4d.models.depth_network import ClipDepthNetwork

    model = ClipDepthNetwork.from_pretrained(folder, torch_dtype=torch.float32)
    return model.eval().to(memory_format=torch.channels_last)


@torch.inference_mode()
def guess(model: torch.nn.Module, frames: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    """Disparity [T, H, W] at the frames' own size of uint8 [T, H, W, 3], the network working at `size_hw`."""
    import cv2

    small = np.stack([cv2.resize(f, size_hw[::-1], interpolation=cv2.INTER_AREA) for f in frames])
    video = torch.from_numpy(small).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    out = model(video)[0]
    return torch.nn.functional.interpolate(out[:, None], frames.shape[1:3], mode="bilinear", align_corners=False)[:, 0]


def read_rgbd(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [T, H, W, 3] and depth float32 [T, H, W] in metres, 0 where unknown."""
    import cv2

    names = sorted(folder.glob("*.color.jpg"))
    color = np.stack([cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB) for p in names])
    depth = np.stack([cv2.imread(str(p).replace("color.jpg", "depth.png"), -1) for p in names])
    return color, np.where(depth == 65535, 0, depth).astype(np.float32) / 1000


def strip(path: Path, color: np.ndarray, disparity: Tensor, depth: np.ndarray, count: int = 4) -> None:
    """Rows: picture, guess, truth; columns: frames."""
    import cv2

    pick = np.linspace(0, len(color) - 1, count).astype(int)

    def shown(a: np.ndarray) -> np.ndarray:
        low, high = np.percentile(a[a > 0], [2, 98])
        return cv2.applyColorMap(
            (np.clip((a - low) / (high - low + 1e-9), 0, 1) * 255).astype(np.uint8), cv2.COLORMAP_TURBO
        )

    truth = np.where(depth > 0, 1 / np.maximum(depth, 0.05), 0)
    rows = [np.concatenate([color[i][..., ::-1] for i in pick], 1)]
    rows += [np.concatenate([shown(a[i]) for i in pick], 1) for a in (disparity.numpy(), truth)]
    picture = np.concatenate(rows)
    scale = min(1.0, 1280 / picture.shape[1])
    cv2.imwrite(str(path), cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seeds", help="FIRST:LAST of rendered scenes, families in turn, the last one not included")
    parser.add_argument("--px", type=int, default=256)
    parser.add_argument("--frames", type=int, default=49)
    parser.add_argument("--rgbd", type=Path)
    parser.add_argument(
        "--rgbd-size", default="192x256,256x352,224x288", help="HxW the network works at, sides divisible by 32"
    )
    parser.add_argument("--strip", type=Path, help="PNG of the RGB-D clip, else of the first scene")
    args = parser.parse_args()
    model = load(args.weights)
    if args.seeds:
        from ex4d.evaluate.scenes import FAMILIES, make_scene
        from ex4d.render.resolve import get_rasterizer

        first, last = (int(x) for x in args.seeds.split(":"))
        rows = []
        for seed in range(first, last):
            family = FAMILIES[seed % len(FAMILIES)]
            video, truth = make_scene(seed, family).source_clip((args.px, args.px), args.frames, get_rasterizer("cpu"))
            begin = time.time()
            out = guess(model, video.frames, (args.px, args.px))
            seconds = time.time() - begin
            z = torch.from_numpy(np.minimum(truth.depth, FARTHEST_RENDERED))
            row = summary(out.flatten(), z.flatten())
            rows.append(row | {"ramp": summary(ramp(z.shape).flatten(), z.flatten())["depth"]})
            print(
                json.dumps({"seed": seed, "family": family, "seconds": round(seconds, 2)} | _short(rows[-1])),
                flush=True,
            )
            if seed == first and args.strip and not args.rgbd:
                strip(args.strip, video.frames, out, z.numpy())
        for name in ("depth", "disparity", "ramp"):
            mean = {k: round(float(np.mean([r[name][k] for r in rows])), 4) for k in ("abs_rel", "delta1")}
            print(json.dumps({"scenes": len(rows), "fit": name} | mean), flush=True)
    if args.rgbd:
        color, depth = read_rgbd(args.rgbd)
        known = torch.from_numpy((depth > RGBD_RANGE[0]) & (depth < RGBD_RANGE[1]))
        z = torch.from_numpy(depth)[known]
        print(json.dumps({"rgbd": "ramp"} | _short(summary(ramp(depth.shape)[known], z))), flush=True)
        for k, size in enumerate(args.rgbd_size.split(",")):
            h, w = (int(x) for x in size.split("x"))
            begin = time.time()
            out = guess(model, color, (h, w))
            seconds = time.time() - begin
            print(json.dumps({"rgbd": size, "seconds": round(seconds, 2)} | _short(summary(out[known], z))), flush=True)
            if k == 0 and args.strip:
                strip(args.strip, color, out, depth)


def _short(value):
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return round(value, 4) if isinstance(value, float) else value


if __name__ == "__main__":
    main()
