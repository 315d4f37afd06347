"""Dense optical flow between two pictures, and a picture pulled along it."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8


def dense_flow(a: UInt8[np.ndarray, "h w"], b: UInt8[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 2"]:
    """Where each pixel of a is in b, as an offset (DIS, Kroeger et al. 2016)."""
    return cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(a, b, np.zeros((*a.shape, 2), np.float32))


def pull(map_: np.ndarray, flow: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """The other frame's map, seen at this frame's pixels."""
    h, w = flow.shape[:2]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(map_, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
