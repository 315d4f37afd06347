"""Scores of one output clip: against its reference, its masks and its cameras."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from ex4d.errors import InputError
from ex4d.evaluate.metrics import image
from ex4d.evaluate.metrics.camera import Alignment, PoseEstimator, error_where_placed
from ex4d.evaluate.metrics.consistency import excess_flicker, flicker, warp_error
from ex4d.evaluate.metrics.features import Features
from ex4d.evaluate.metrics.lpips import Lpips
from ex4d.evaluate.metrics.masks import mask_score
from ex4d.types import VideoClip

#: Metric -> (heading, whether more is better, unit). None: neither way is better by itself.
HEADINGS: dict[str, tuple[str, bool | None, str]] = {
    "psnr": ("PSNR", True, "dB"),
    "psnr_seen": ("PSNR, seen pixels", True, "dB"),
    "psnr_hole": ("PSNR, holes", True, "dB"),
    "ssim": ("SSIM", True, ""),
    "ssim_seen": ("SSIM, seen pixels", True, ""),
    "ssim_hole": ("SSIM, holes", True, ""),
    "ms_ssim": ("MS-SSIM", True, ""),
    "gmsd": ("GMSD", False, ""),
    "gmsd_seen": ("GMSD, seen pixels", False, ""),
    "gmsd_hole": ("GMSD, holes", False, ""),
    "lpips": ("LPIPS", False, ""),
    "coverage": ("mask coverage", None, ""),
    "mask_precision": ("mask precision", True, ""),
    "mask_recall": ("mask recall", True, ""),
    "mask_f1": ("mask F1", True, ""),
    "mask_iou": ("mask IoU", True, ""),
    "silhouette_iou": ("silhouette IoU", True, ""),
    "flicker": ("flicker", None, ""),
    "excess_flicker": ("excess flicker", False, ""),
    "warp_error": ("warped consistency error", False, "levels"),
    "rot_err": ("RotErr", False, "degrees"),
    "rot_err_pairs": ("RotErr, all pairs", False, "degrees"),
    "trans_err": ("TransErr", False, ""),
    "cam_mc": ("CamMC", False, ""),
    "placed": ("frames placed", True, ""),
    "rot_err_floor": ("RotErr of the true video (floor)", None, "degrees"),
    "trans_err_floor": ("TransErr of the true video (floor)", None, ""),
    "fid": ("FID", False, ""),
    "kid": ("KID", False, ""),
    "fvd": ("FVD", False, ""),
    "psnr_claimed": ("PSNR, claimed pixels", True, "dB"),
    "psnr_common": ("PSNR where all claim", True, "dB"),
}


def heading(metric: str) -> tuple[str, bool | None, str]:
    """Heading, direction and unit of any metric; VBench's dimensions are more-is-better."""
    return HEADINGS.get(metric, (metric.replace("_", " "), True, ""))


@dataclass(frozen=True)
class Tools:
    """What scoring may use; None leaves the metric out, and the report says so."""

    frame_features: Features | None = None
    clip_features: Features | None = None
    lpips: Lpips | None = None


@dataclass(frozen=True)
class Pair:
    """One output beside what it is judged by; all clips have one length and size."""

    output: np.ndarray
    target: np.ndarray | None = None
    visible: np.ndarray | None = None
    claimed: np.ndarray | None = None


def read_clip(path: Path) -> VideoClip:
    """A video file, or a folder of pictures sorted by name."""
    if not path.is_dir():
        from ex4d.io.video.read import read_video

        return read_video(path)
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    if not names:
        raise InputError(f"{path} holds no pictures", "PNG or JPEG frames")
    frames = []
    for name in names:
        picture = cv2.imread(str(name), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f"{name} is not a picture", "PNG or JPEG frames", "write it again")
        if frames and picture.shape != frames[0].shape:
            raise InputError(
                f"{name} is {picture.shape[1]}x{picture.shape[0]}",
                f"{frames[0].shape[1]}x{frames[0].shape[0]}, as the first frame",
            )
        frames.append(picture[..., ::-1])
    return VideoClip(np.stack(frames), Fraction(24))


def read_mask(path: Path) -> np.ndarray:
    """bool [T, H, W]: brighter than mid-grey."""
    return read_clip(path).frames.mean(-1) > 127.5


def check_same(a: np.ndarray, b: np.ndarray, what: str) -> None:
    """Raise InputError unless two clips have one length and size."""
    if len(a) != len(b):
        raise InputError(
            f"{len(a)} frames, {what} has {len(b)}", "one length", "generate all frames, or cut the reference"
        )
    if a.shape[1:3] != b.shape[1:3]:
        raise InputError(
            f"{a.shape[2]}x{a.shape[1]}, {what} is {b.shape[2]}x{b.shape[1]}",
            "one size",
            "generate at the reference's size",
        )


def score_pair(pair: Pair, metrics: tuple[str, ...], tools: Tools) -> dict[str, float]:
    """All frame metrics asked for, means over frames (PSNR from the mean squared error over all pixels of the clip)."""
    out: dict[str, float] = {}
    frames, target = pair.output, pair.target
    if target is not None:
        check_same(frames, target, "the reference")
        out |= _against(frames, target, pair.visible, metrics, tools)
    if "flicker" in metrics:
        out["flicker"] = flicker(frames)
    if "warp" in metrics:
        out["warp_error"] = warp_error(frames, target)
    if "mask" in metrics and pair.claimed is not None and pair.visible is not None:
        check_same(pair.claimed, pair.visible, "the true mask")
        score = mask_score(pair.claimed, pair.visible)
        out |= {f"mask_{name}": getattr(score, name) for name in ("precision", "recall", "f1", "iou")}
        out["coverage"] = score.coverage
    return out


def _against(
    frames: np.ndarray, target: np.ndarray, visible: np.ndarray | None, metrics: tuple[str, ...], tools: Tools
) -> dict[str, float]:
    """Metrics that need the true clip: on the frame, and in seen pixels and holes where these are known."""
    out: dict[str, float] = {}
    regions: dict[str, np.ndarray | None] = {"": None}
    if visible is not None:
        check_same(frames, visible, "the true mask")
        regions |= {"_seen": visible, "_hole": ~visible}
    for region, masks in regions.items():
        if "psnr" in metrics:
            out[f"psnr{region}"] = _psnr(frames, target, masks)
        for name, metric in (("ssim", image.ssim), ("gmsd", image.gmsd)):
            if name in metrics:
                out[f"{name}{region}"] = float(
                    _mean(
                        lambda t, m=metric, k=masks: m(frames[t], target[t], None if k is None else k[t]), len(frames)
                    )
                )
    if "ms_ssim" in metrics and min(frames.shape[1:3]) > 160:
        out["ms_ssim"] = _mean(lambda t: image.ms_ssim(frames[t], target[t]), len(frames))
    if "lpips" in metrics and tools.lpips is not None:
        lpips = tools.lpips
        out["lpips"] = _mean(lambda t: lpips(frames[t], target[t]), len(frames))
    if "flicker" in metrics:
        out["excess_flicker"] = excess_flicker(frames, target)
    return out


def score_camera(
    video: VideoClip, truth: np.ndarray, estimator: PoseEstimator, alignment: Alignment, true_video: VideoClip | None
) -> dict[str, float]:
    """Camera errors of a clip, and the estimator's floor on the true video."""
    out: dict[str, float] = {}
    error, placed = error_where_placed(estimator.estimate(video), truth, alignment)
    out["placed"] = placed
    if error is not None:
        out |= {
            "rot_err": error.rot_deg,
            "rot_err_pairs": error.rot_pairs_deg,
            "trans_err": error.trans,
            "cam_mc": error.cam_mc,
        }
    if true_video is not None:
        floor, _ = error_where_placed(estimator.estimate(true_video), truth, alignment)
        if floor is not None:
            out |= {"rot_err_floor": floor.rot_deg, "trans_err_floor": floor.trans}
    return out


def _psnr(a: np.ndarray, b: np.ndarray, masks: np.ndarray | None) -> float:
    errors, weights = [], []
    for t in range(len(a)):
        mask = None if masks is None else masks[t]
        count = a[t].size if mask is None else int(np.count_nonzero(mask))
        if count:
            errors.append(image.squared_error(a[t], b[t], mask))
            weights.append(count)
    return image.psnr_of(float(np.average(errors, weights=weights))) if errors else math.nan


def _mean(metric: Callable[[int], float], count: int) -> float:
    values = [metric(t) for t in range(count)]
    finite = [v for v in values if math.isfinite(v)]
    return float(np.mean(finite)) if finite else math.nan
