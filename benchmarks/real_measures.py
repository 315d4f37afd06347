"""What one re-shot clip shows without human eyes: measures over its mask, depth, cameras and output, arrays in and numbers out.

How each follows the eye (rank correlation with scores of 24 runs by eye) stands in results/real_clips.md.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from ex4d import CameraPath, DepthClip

Frames = UInt8[np.ndarray, "time height width 3"]
Masks = Bool[np.ndarray, "time height width"]
Depths = Float32[np.ndarray, "time height width"]

#: A source pixel that covers more than this many output pixels in some direction is stretched.
STRETCHED_PX = 3.0

#: Parts of the 9x9 majority of a mask that are smaller than this many pixels give it no outline.
LARGE_PART_PX = 150

#: Which part of the source counts as near, percent.
NEAR_PERCENT = 25


def source_pixels(
    z: Float[np.ndarray, "height width"],
    K: Float[np.ndarray, "3 3"],
    cam_from_source: Float[np.ndarray, "4 4"],
    source_K: Float[np.ndarray, "3 3"],
) -> Float[np.ndarray, "height width 2"]:
    """(x, y) in the source picture that every output pixel shows, by the depth of the output."""
    h, w = z.shape
    y, x = np.mgrid[0:h, 0:w] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K.astype(np.float64)).T
    points = rays * np.where(np.isfinite(z), z, 1e6)[..., None]
    source_from_cam = np.linalg.inv(cam_from_source)
    q = (points @ source_from_cam[:3, :3].T + source_from_cam[:3, 3]) @ source_K.astype(np.float64).T
    return q[..., :2] / np.where(np.abs(q[..., 2:]) < 1e-6, 1e-6, q[..., 2:])


def mask_faults(mask: Masks) -> tuple[float, float, float]:
    """(odd, stripes, teeth): shares of pixels whose class is not that of most of their 5x5 neighbours.

    `odd` is of all pixels; `stripes` of those more than 4 px from the outline of the mask's large parts; `teeth` of those near it.
    """
    odds, stripes, teeth = [], [], []
    for m in mask:
        f = m.astype(np.float32)
        odd = (cv2.blur(f, (5, 5), borderType=cv2.BORDER_REPLICATE) > 0.5) != m
        large = (cv2.blur(f, (9, 9), borderType=cv2.BORDER_REPLICATE) > 0.5).astype(np.uint8)
        for value in (0, 1):
            n, labels, stats, _ = cv2.connectedComponentsWithStats((large == value).astype(np.uint8), connectivity=4)
            small = np.isin(labels, [i for i in range(1, n) if stats[i, cv2.CC_STAT_AREA] < LARGE_PART_PX])
            large[small] = 1 - value
        outline = cv2.morphologyEx(large, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
        band = cv2.dilate(outline, np.ones((9, 9), np.uint8)) > 0
        odds.append(odd.mean())
        stripes.append(odd[~band].mean() if (~band).any() else 0)
        teeth.append(odd[band].mean() if band.any() else 0)
    return float(np.mean(odds)), float(np.mean(stripes)), float(np.mean(teeth))


def stretch(mask: Masks, z: Depths, path: CameraPath, source_K: Float[np.ndarray, "3 3"], every: int = 4) -> float:
    """Share of seen pixels that show one source pixel spread over more than `STRETCHED_PX` in some direction."""
    bad = total = 0
    for t in range(0, len(mask), every):
        uv = source_pixels(z[t], path.K[t], path.cam_from_world[t], source_K)
        m = mask[t]
        whole = m[1:-1, 1:-1] & m[1:-1, 2:] & m[1:-1, :-2] & m[2:, 1:-1] & m[:-2, 1:-1]
        dx, dy = (uv[1:-1, 2:] - uv[1:-1, :-2]) / 2, (uv[2:, 1:-1] - uv[:-2, 1:-1]) / 2
        a, b, c, d = dx[..., 0], dy[..., 0], dx[..., 1], dy[..., 1]
        f = a * a + b * b + c * c + d * d
        det = np.abs(a * d - b * c)
        least = np.sqrt(np.maximum((f - np.sqrt(np.maximum(f * f - 4 * det * det, 0))) / 2, 0))
        bad += int((whole & (least < 1 / STRETCHED_PX)).sum())
        total += int(whole.sum())
    return bad / max(total, 1)


def kept_near(mask: Masks, z: Depths, path: CameraPath, depth: DepthClip) -> float:
    """Share of the source's nearest quarter that the last fifth of the path still shows; an orbit about the wrong point loses it."""
    kept = []
    h, w = depth.size_hw
    for t in range(len(mask) - len(mask) // 5, len(mask), 3):
        uv = source_pixels(z[t], path.K[t], path.cam_from_world[t], depth.K[t])
        shown = np.zeros((h, w), np.uint8)
        u, v = np.floor(uv[mask[t]]).astype(int).T
        inside = (u >= 0) & (u < w) & (v >= 0) & (v < h)
        shown[v[inside], u[inside]] = 1
        shown = cv2.dilate(shown, np.ones((3, 3), np.uint8)) > 0
        near = depth.depth[t] <= np.percentile(depth.depth[t], NEAR_PERCENT)
        kept.append(shown[near].mean())
    return float(np.mean(kept))


def flicker_of_seen(out: Frames, mask: Masks) -> float:
    """Mean |difference|, levels, of neighbours in time after dense optical flow, on pixels seen in both; NaN where none are."""
    flow_of = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    gray = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in out])
    h, w = gray[0].shape
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    seen = []
    for t in range(len(out) // 4, len(out) - 1, 3):
        flow = flow_of.calc(gray[t], gray[t + 1], None)  # type: ignore[call-overload]  # None asks for a new array
        mx, my = x + flow[..., 0], y + flow[..., 1]
        inside = (mx >= 0) & (mx < w - 1) & (my >= 0) & (my < h - 1)
        change = np.abs(cv2.remap(out[t + 1], mx, my, cv2.INTER_LINEAR).astype(np.float32) - out[t]).mean(-1)
        both = inside & mask[t] & (cv2.remap(mask[t + 1].astype(np.uint8), mx, my, cv2.INTER_NEAREST) > 0)
        if both.sum() > 200:
            seen.append(change[both].mean())
    return float(np.mean(seen)) if seen else float("nan")


def sharpness(out: Frames, mask: Masks) -> float:
    """Gradient amplitude of holes over that of seen pixels, both 3 px away from the mask's outline; NaN without either."""
    hole, seen = [], []
    k = np.ones((7, 7), np.uint8)
    for t in range(len(out) // 4, len(out), 4):
        g = cv2.cvtColor(out[t], cv2.COLOR_RGB2GRAY).astype(np.float32)
        energy = cv2.Sobel(g, cv2.CV_32F, 1, 0) ** 2 + cv2.Sobel(g, cv2.CV_32F, 0, 1) ** 2
        a, b = cv2.erode((~mask[t]).astype(np.uint8), k) > 0, cv2.erode(mask[t].astype(np.uint8), k) > 0
        if a.sum() > 200 and b.sum() > 200:
            hole.append(energy[a].mean())
            seen.append(energy[b].mean())
    return float(np.sqrt(np.mean(hole) / np.mean(seen))) if hole else float("nan")


def disparity_range(depth: DepthClip) -> float:
    """90th over 10th percentile of 1/z: flat depth makes few holes, and this says so."""
    high, low = np.percentile(1 / depth.depth, [90, 10])
    return float(high / low)
