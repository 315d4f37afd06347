"""Over time: flicker, and what changes along the optical flow. Clips are uint8 RGB [T, H, W, 3]."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ex4d.evaluate.metrics.image import check_pair

#: Forward and backward flow may disagree by this many pixels (plus 1 % of their length, squared) before a pixel counts as
#: hidden in the next frame (Sundaram et al. 2010).
FLOW_SLACK_PX = 0.7


def flicker(frames: np.ndarray) -> float:
    """Mean absolute change from frame to frame, 0..1 (1 minus VBench's temporal flickering). A still clip has 0.

    It rewards not moving: show it beside the true video's own.
    """
    if len(frames) < 2:
        return 0.0
    return float(np.mean([cv2.absdiff(a, b).mean() for a, b in zip(frames, frames[1:], strict=False)]) / 255)


def excess_flicker(frames: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Mean absolute difference between the changes of a clip and those of the true one, 0..1; 0 for the truth itself.

    With `mask` [T, H, W], over pixels that are in it at both times; NaN where there are none.
    """
    check_pair(frames, truth)
    if len(frames) < 2:
        return 0.0
    change = [np.diff(x.astype(np.int16), axis=0) for x in (frames, truth)]
    difference = np.abs(change[0] - change[1])
    if mask is not None:
        difference = difference[mask[:-1] & mask[1:]]
    return float(difference.mean() / 255) if difference.size else math.nan


def optical_flow(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Where each pixel of `a` goes in `b`, [H, W, 2] pixels (OpenCV's DIS, medium preset)."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return dis.calc(cv2.cvtColor(a, cv2.COLOR_RGB2GRAY), cv2.cvtColor(b, cv2.COLOR_RGB2GRAY), None)  # type: ignore[call-overload]


def warp(picture: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Backward warp: the value at x + flow(x), bilinear."""
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(picture, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def seen_motion(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flow from `a` to `b` and where to trust it: bool [H, W], False for what is hidden in `b`."""
    forward, backward = optical_flow(a, b), optical_flow(b, a)
    back = warp(backward, forward)
    slack = FLOW_SLACK_PX + 0.01 * ((forward**2).sum(-1) + (back**2).sum(-1))
    return forward, ((forward + back) ** 2).sum(-1) <= slack


def warp_error(frames: np.ndarray, flow_from: np.ndarray | None = None) -> float:
    """Root mean squared difference (0..255) between each frame and the next one warped back onto it, where not hidden.

    Args:
        frames: The clip to judge.
        flow_from: The clip whose motion is used (the true video); None: its own, which forgives false motion.
    """
    motion = frames if flow_from is None else flow_from
    check_pair(frames, motion)
    total, count = 0.0, 0
    for t in range(len(frames) - 1):
        forward, visible = seen_motion(motion[t], motion[t + 1])
        difference = frames[t].astype(np.float32) - warp(frames[t + 1].astype(np.float32), forward)
        total += float((difference[visible] ** 2).sum())
        count += 3 * int(visible.sum())
    return float(np.sqrt(total / count)) if count else 0.0
