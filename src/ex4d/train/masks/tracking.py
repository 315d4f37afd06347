"""Tracking masks (METHOD 5.4): points are followed through the clip, and holes open where content stretches, hides or leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ex4d.errors import ResourceError

#: Authors' snippet: points along each side of the grid, both ends included.
GRID_SIZE = (10, 50)

#: CoTracker3's working size (height, width) and the margin of its grid, pixels of that size.
TRACKER_HW, MARGIN_PX = (384, 512), 8

#: Lucas-Kanade: window and levels, and the forward-backward distance in pixels (at 512 wide) above which a
#: point counts as lost.
LK_WINDOW_PX, LK_LEVELS, LK_ROUND_TRIP_PX = 15, 3, 1.0

#: The same for dense flow, whose vectors are less exact; 5 % of the step is added.
FLOW_ROUND_TRIP_PX = 1.5
#: A point whose luminance changes by more, of 255 from frame to frame, is not the same point.
FLOW_LEVELS = 24


class Tracker(Protocol):
    """Follows points from the first frame."""

    name: str
    licence: str

    def track(self, frames: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where points of the first frame are in every frame.

        Args:
            frames: RGB uint8 [T, H, W, 3].
            points_px: (x, y) in the first frame [N, 2], pixel centres at +0.5.

        Returns:
            Positions float32 [T, N, 2] and visibility bool [T, N]; in the first frame every point is visible.
        """
        ...


class LucasKanadeTracker:
    """Pyramidal Lucas-Kanade, frame by frame, with a forward-backward check; needs no weights. A lost point stays lost."""

    name, licence = "lucas-kanade", "Apache-2.0 (OpenCV)"

    def track(self, frames: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        count, (h, w) = len(points_px), frames.shape[1:3]
        positions = np.empty((len(frames), count, 2), np.float32)
        visible = np.ones((len(frames), count), bool)
        positions[0] = points_px
        options: Any = {"winSize": (LK_WINDOW_PX, LK_WINDOW_PX), "maxLevel": LK_LEVELS}
        before = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
        limit = LK_ROUND_TRIP_PX * max(w / 512, 0.5)
        for t in range(1, len(frames)):
            now = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
            start = positions[t - 1][:, None] - np.float32(0.5)  # OpenCV's centres are whole numbers
            end, found, _ = cv2.calcOpticalFlowPyrLK(before, now, start, None, **options)  # type: ignore[call-overload]
            back, found_back, _ = cv2.calcOpticalFlowPyrLK(now, before, end, None, **options)  # type: ignore[call-overload]
            away = np.linalg.norm(back - start, axis=2)[:, 0]
            position = end[:, 0] + np.float32(0.5)
            inside = ((position >= 0) & (position < (w, h))).all(1)
            ok = (found[:, 0] > 0) & (found_back[:, 0] > 0) & (away <= limit) & inside
            visible[t] = visible[t - 1] & ok
            positions[t] = np.where(visible[t][:, None], position, positions[t - 1])
            before = now
        return positions, visible


class DenseFlowTracker:
    """Dense inverse search flow, chained frame by frame, with a forward-backward check; needs no weights.

    Its smoothness carries points over flat surfaces, where Lucas-Kanade loses them. A lost point stays lost.
    """

    name, licence = "dense-flow", "Apache-2.0 (OpenCV)"

    def track(self, frames: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import cv2

        (h, w), count = frames.shape[1:3], len(points_px)
        positions = np.empty((len(frames), count, 2), np.float32)
        visible = np.ones((len(frames), count), bool)
        positions[0] = points_px
        flow: Any = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]
        before = cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY)
        limit = FLOW_ROUND_TRIP_PX * max(w / 512, 0.5)
        for t in range(1, len(frames)):
            now = cv2.cvtColor(frames[t], cv2.COLOR_RGB2GRAY)
            there, back = flow.calc(before, now, None), flow.calc(now, before, None)
            start = positions[t - 1]
            end = start + sampled(there, start)
            away = np.linalg.norm(end + sampled(back, end) - start, axis=1)
            inside = ((end >= 0) & (end < (w, h))).all(1)
            round_trip = away <= limit + 0.05 * np.linalg.norm(end - start, axis=1)
            alike = (
                np.abs(sampled(cv2.blur(now, (3, 3)), end) - sampled(cv2.blur(before, (3, 3)), start)) <= FLOW_LEVELS
            )
            visible[t] = visible[t - 1] & inside & round_trip & alike
            positions[t] = np.where(visible[t][:, None], end, start)
            before = now
        return positions, visible


def sampled(field: np.ndarray, points_px: np.ndarray) -> np.ndarray:
    """A field [H, W, ...] at points (x, y) [N, 2], float32, bilinear, pixel centres at +0.5."""
    import cv2

    at = (points_px - 0.5).astype(np.float32)
    return cv2.remap(
        field.astype(np.float32), at[:, None, 0], at[:, None, 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )[:, 0]


class CoTracker3:
    """CoTracker3 offline from a local torch.hub checkout or a checkpoint file; nothing is downloaded.

    Its licence is CC-BY-NC 4.0: for non-commercial use only, which the built-in tracker has no part in.

    Args:
        checkout: Folder of the `facebookresearch/co-tracker` repository.
        checkpoint: `scaled_offline.pth`.
    """

    name, licence = "cotracker3", "CC-BY-NC-4.0 (non-commercial)"

    def __init__(self, checkout: Path, checkpoint: Path, device: str = "cuda") -> None:
        import torch

        checkout, checkpoint = Path(checkout), Path(checkpoint)
        if not (checkout / "hubconf.py").is_file() or not checkpoint.is_file():
            raise ResourceError(
                f"CoTracker3 not found in {checkout} with {checkpoint}",
                "a checkout of facebookresearch/co-tracker and its scaled_offline.pth",
                "--tracker dense-flow",
            )
        model = torch.hub.load(str(checkout), "cotracker3_offline", source="local", pretrained=False)
        model.model.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True))  # type: ignore[union-attr]
        self._model, self._device = model.to(device).eval(), device  # type: ignore[union-attr]

    def track(self, frames: np.ndarray, points_px: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        video = torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float().to(self._device)
        points = torch.from_numpy(points_px.astype(np.float32) - 0.5)
        queries = torch.cat([torch.zeros(len(points), 1), points], dim=1)[None].to(self._device)
        with torch.no_grad():
            tracks, visible = self._model(video, queries=queries)
        positions = tracks[0].float().cpu().numpy() + np.float32(0.5)
        seen = visible[0].cpu().numpy().astype(bool)
        seen[0] = True
        return positions, seen


def get_tracker(name: str = "dense-flow", checkout: Path | None = None, checkpoint: Path | None = None) -> Tracker:
    """A built-in tracker (dense-flow, lucas-kanade), or CoTracker3 from local files."""
    if name == "dense-flow":
        return DenseFlowTracker()
    if name == "lucas-kanade":
        return LucasKanadeTracker()
    if name == "cotracker3" and checkout and checkpoint:
        import torch

        return CoTracker3(checkout, checkpoint, "cuda" if torch.cuda.is_available() else "cpu")
    raise ResourceError(
        f"tracker {name!r} with checkout {checkout} and checkpoint {checkpoint}",
        "dense-flow, lucas-kanade, or cotracker3 with both paths",
        "--tracker dense-flow",
    )


def grid_points(size_hw: tuple[int, int], grid_size: int) -> np.ndarray:
    """CoTracker's grid [grid_size^2, 2] of (x, y), row by row: a margin of 8 of its 512 x 384 pixels on every side."""
    (h, w), (th, tw) = size_hw, TRACKER_HW
    margin_x, margin_y = MARGIN_PX * (w - 1) / (tw - 1), MARGIN_PX * (h - 1) / (th - 1)
    x = np.linspace(margin_x, w - 1 - margin_x, grid_size) + 0.5
    y = np.linspace(margin_y, h - 1 - margin_y, grid_size) + 0.5
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2).astype(np.float32)


def tracking_mask(frames: np.ndarray, tracker: Tracker, grid_size: int) -> np.ndarray:
    """Seen where a visible track is near, bool [T, H, W]; the first frame is whole.

    Every visible point covers a rectangle of one grid spacing around it, so that the first frame is covered without gaps and
    holes open where neighbours move apart, are lost or leave.
    """
    positions, visible = tracker.track(frames, grid_points(frames.shape[1:3], grid_size))
    return covered(positions, visible, frames.shape[1:3], grid_size)


def covered(positions: np.ndarray, visible: np.ndarray, size_hw: tuple[int, int], grid_size: int) -> np.ndarray:
    """The mask of tracks [T, N, 2] and their visibility [T, N]: scatter, then a max filter of one spacing."""
    import cv2

    (h, w), (T, _) = size_hw, visible.shape
    spacing_x = (w - 1) * (1 - 2 * MARGIN_PX / (TRACKER_HW[1] - 1)) / (grid_size - 1)
    spacing_y = (h - 1) * (1 - 2 * MARGIN_PX / (TRACKER_HW[0] - 1)) / (grid_size - 1)
    marks = np.zeros((T, h, w), np.uint8)
    cell = np.floor(positions).astype(np.int64)
    keep = visible & (cell >= 0).all(2) & (cell[..., 0] < w) & (cell[..., 1] < h)
    frame = np.broadcast_to(np.arange(T)[:, None], keep.shape)[keep]
    marks[frame, cell[keep][:, 1], cell[keep][:, 0]] = 1
    kernel = np.ones((2 * int(np.ceil(spacing_y / 2)) + 1, 2 * int(np.ceil(spacing_x / 2)) + 1), np.uint8)
    mask = np.stack([cv2.dilate(m, kernel) for m in marks]) > 0
    mask[0] = True
    return mask
