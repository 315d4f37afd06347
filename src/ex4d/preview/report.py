"""What a camera path will cost before anything is generated: coverage, holes, collisions; and the largest path that fits.

Stands beside `pipeline/line.py`: it renders the clip's own meshes at low resolution on the CPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from ex4d.cameras.make import make_path
from ex4d.cameras.place import RelativeTo, place_path
from ex4d.cameras.subject import Subject, find_subject
from ex4d.errors import InputError
from ex4d.geometry.frames import eye_in_world
from ex4d.geometry.pinhole import project, resize_intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.render.base import Rasterizer
from ex4d.render.clip import render_clip
from ex4d.types import MAX_CHUNK_FRAMES, CameraPath, DepthClip, Progress, VideoClip

#: Longer side of a preview, pixels.
SIZE_PX = 256

#: The meshes themselves keep the source's own resolution up to this longer side: shrinking them would move the edges of
#: holes by a pixel of theirs and the shares by a point or two; drawing them on fewer pixels costs a few tenths of a point.
SOURCE_PX = 960

#: Surfaces that the source saw under a flatter angle than this to their plane stretch into streaks.
GRAZING_DEG = 15.0

#: What models of this kind do well: EX-4D's own scores fall beyond its "large" range of 60 degrees (FID 50 to 55), and
#: closer than half or further than twice the subject's distance a pixel is magnified or shrunk by more than 2.
SAFE_DEG = 60.0
SAFE_DISTANCE = (0.5, 2.0)

#: `suggest` scans this many sizes before it bisects, so that a hump of the hole share is not stepped over.
SCAN_STEPS = 12
SUGGEST_FRAMES = 13
SUGGEST_TOLERANCE = 0.25


@dataclass(frozen=True)
class PathReport:
    """One number per previewed frame; shares are of the picture, 0..1.

    Attributes:
        frame: Index of the output frame.
        seen: Share of pixels that show a surface which the source camera saw.
        largest_hole: Share of the largest connected unseen region.
        grazing: Share of pixels that show a surface seen at less than `GRAZING_DEG` to its plane.
        collision: The camera stands inside or behind a surface that the source saw in front of it.
        turn_deg: Angle at the subject between the source camera and the new one.
        distance: To the subject, as a multiple of the source camera's.
        path: Its cameras, at the size of the preview.
    """

    frame: Int64[np.ndarray, " time"]
    seen: Float64[np.ndarray, " time"]
    largest_hole: Float64[np.ndarray, " time"]
    grazing: Float64[np.ndarray, " time"]
    collision: Bool[np.ndarray, " time"]
    turn_deg: Float64[np.ndarray, " time"]
    distance: Float64[np.ndarray, " time"]
    path: CameraPath

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def unseen(self) -> Float64[np.ndarray, " time"]:
        """Share of pixels that a model has to invent."""
        return 1 - self.seen

    @property
    def past_safe_deg(self) -> Float64[np.ndarray, " time"]:
        """Degrees around the subject beyond `SAFE_DEG`."""
        return np.maximum(self.turn_deg - SAFE_DEG, 0)

    @property
    def past_safe_distance(self) -> Float64[np.ndarray, " time"]:
        """How far the distance lies outside `SAFE_DISTANCE`, as a multiple of the source's."""
        near, far = SAFE_DISTANCE
        return np.maximum(np.maximum(near - self.distance, self.distance - far), 0)


def preview_path(
    video: VideoClip,
    depth: DepthClip,
    path: CameraPath,
    *,
    size_px: int = SIZE_PX,
    rasterizer: Rasterizer | None = None,
    subject: Subject | None = None,
    source_frame: Int64[np.ndarray, " source"] | None = None,
    progress: Progress | None = None,
) -> PathReport:
    """Render a path small and count.

    Args:
        video: Source frames; above `SOURCE_PX` they are shrunk.
        depth: Depth of the same frames, at the same size.
        path: In the world of the source cameras (`geometry.relative.place_path` has been applied).
        size_px: Longer side of the picture that is drawn.
        rasterizer: Default: the CPU's.
        subject: What turns are measured around; default: the first frame's.
        source_frame: Clip index of each given source frame, when only some frames of a long clip are here.
        progress: Told after every frame.
    """
    subject = subject or find_subject(depth)
    rule = preview_rule(depth)
    video, depth = shrink(video, depth, SOURCE_PX)
    path = every_kth_pixel(_fitted(path, video.size_hw), size_px)
    flags = VideoClip(_flags(depth), video.fps)
    index = nearest_source(path, len(depth), source_frame)
    depth_range = DepthRange.of(depth.depth)
    rasterizer = rasterizer or _cpu()
    rows = []
    for start in range(0, len(path), MAX_CHUNK_FRAMES):
        part = slice(start, start + MAX_CHUNK_FRAMES)
        chosen = replace(path[part], source_time=index[part].astype(np.float64))
        render = render_clip(
            flags, depth, chosen, rule=rule, depth_range=depth_range, rasterizer=rasterizer, keep_first=False
        )
        for color, mask in zip(render.color, render.mask, strict=True):
            rows.append((mask.mean(), _largest_hole(mask), (mask & (color[..., 1] > 127)).mean()))
            if progress is not None:
                progress(len(rows), len(path), "preview")
    seen, hole, grazing = np.array(rows).T
    turn, distance, collision = _places(path, depth, index, subject)
    return PathReport(np.arange(len(path)), seen, hole, grazing, collision, turn, distance, path)


def preview_rule(depth: DepthClip) -> MeshRule:
    """The default mesh rule, with the angle of the full-size picture: triangles of a slope keep their shape when shrunk."""
    return replace(MeshRule(), angle_deg=MeshRule().min_angle_deg(depth.K[0]))


def shrink(video: VideoClip, depth: DepthClip, size_px: int) -> tuple[VideoClip, DepthClip]:
    """Both at `size_px` for the longer side (never larger): colour averaged, depth picked, so that edges stay edges."""
    import cv2

    h, w = video.size_hw
    size = preview_size((h, w), size_px)
    if size == (h, w):
        return video, depth
    frames = np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_AREA) for f in video.frames])
    rows = ((np.arange(size[0]) + 0.5) * h / size[0]).astype(int)
    cols = ((np.arange(size[1]) + 0.5) * w / size[1]).astype(int)
    small = np.ascontiguousarray(depth.depth[:, rows[:, None], cols])
    K = resize_intrinsics(depth.K, (h, w), size)
    return VideoClip(frames, video.fps), DepthClip(small, K, depth.unit, depth.cam_from_world)


def preview_size(size_hw: tuple[int, int], size_px: int) -> tuple[int, int]:
    """(height, width) with a longer side of at most `size_px`."""
    h, w = size_hw
    scale = min(1.0, size_px / max(h, w))
    return max(round(h * scale), 2), max(round(w * scale), 2)


def resize_path(path: CameraPath, size_hw: tuple[int, int]) -> CameraPath:
    """The same cameras with another number of pixels."""
    return replace(path, K=resize_intrinsics(path.K, path.size_hw, size_hw), size_hw=size_hw)


def every_kth_pixel(path: CameraPath, size_px: int) -> CameraPath:
    """Cameras whose pixels are exactly every k-th pixel of the path's own, k as small as `size_px` allows.

    Pixel i of the result is pixel k i + k // 2 of the original: their centres are the same rays, so a render is the full-size
    render picked, not resampled, and its shares differ by sampling noise alone.
    """
    h, w = path.size_hw
    k = max(-(-max(h, w) // size_px), 1)
    K = path.K.astype(np.float64)
    K[:, :2, 2] += 0.5 * k - (k // 2 + 0.5)
    K[:, :2] /= k
    size = len(range(k // 2, h, k)), len(range(k // 2, w, k))
    return replace(path, K=K.astype(np.float32), size_hw=size)


def _fitted(path: CameraPath, source_hw: tuple[int, int]) -> CameraPath:
    """The path at no more pixels than the source has on its longer side."""
    return (
        path if max(path.size_hw) <= max(source_hw) else resize_path(path, preview_size(path.size_hw, max(source_hw)))
    )


def nearest_source(
    path: CameraPath, count: int, source_frame: Int64[np.ndarray, " source"] | None
) -> Int64[np.ndarray, " time"]:
    """Index into the given source frames of the one that each output frame shows."""
    time = np.floor(path.source_time + 0.5).astype(np.int64)
    if source_frame is None:
        return np.clip(time, 0, count - 1)
    return np.abs(time[:, None] - source_frame[None, :]).argmin(axis=1)


def _cpu() -> Rasterizer:
    from ex4d.render.make import get_rasterizer

    return get_rasterizer("cpu")


def _flags(depth: DepthClip) -> UInt8[np.ndarray, "time height width 3"]:
    """Instead of colour: green is 255 where the source camera saw the surface at a grazing angle."""
    out = np.zeros((*depth.depth.shape, 3), np.uint8)
    for t in range(len(depth)):
        out[t, ..., 1] = 255 * grazing(depth.depth[t], depth.K[t])
    return out


def grazing(depth: Float32[np.ndarray, "h w"], K: Float32[np.ndarray, "3 3"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose surface makes less than `GRAZING_DEG` with the viewing ray.

    With z(x, y), the plane's normal is n = (fx z_x, fy z_y, -z - (x - cx) z_x - (y - cy) z_y) up to scale, and n . ray = -z for
    the ray ((x - cx) / fx, (y - cy) / fy, 1), so that the sine of the angle is z / (|n| |ray|). Slopes take the flatter of the
    two neighbours on each axis: a depth edge does not make both its sides steep.
    """
    h, w = depth.shape
    fx, fy, cx, cy = (np.float32(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    x = (np.arange(w, dtype=np.float32) + np.float32(0.5) - cx)[None, :]
    y = (np.arange(h, dtype=np.float32) + np.float32(0.5) - cy)[:, None]
    zx, zy = _flatter(depth, 1), _flatter(depth, 0)
    normal2 = (depth + x * zx + y * zy) ** 2 + (fx * zx) ** 2 + (fy * zy) ** 2
    ray2 = 1 + (x / fx) ** 2 + (y / fy) ** 2
    return depth * depth < np.float32(np.sin(np.radians(GRAZING_DEG)) ** 2) * normal2 * ray2


def _flatter(z: Float32[np.ndarray, "h w"], axis: int) -> Float32[np.ndarray, "h w"]:
    out = np.zeros_like(z)
    step = np.diff(z, axis=axis)
    at = [slice(None), slice(None)]
    if step.shape[axis] == 0:
        return out
    first, last, inner = list(at), list(at), list(at)
    first[axis], last[axis], inner[axis] = slice(0, 1), slice(-1, None), slice(1, -1)
    before, after = list(at), list(at)
    before[axis], after[axis] = slice(0, -1), slice(1, None)
    a, b = step[tuple(before)], step[tuple(after)]
    out[tuple(inner)] = np.where(np.abs(a) < np.abs(b), a, b)
    out[tuple(first)], out[tuple(last)] = step[tuple(first)], step[tuple(last)]
    return out


def _largest_hole(mask: Bool[np.ndarray, "h w"]) -> float:
    import cv2

    count, _, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    return float(stats[1:, cv2.CC_STAT_AREA].max()) / mask.size if count > 1 else 0.0


def _places(
    path: CameraPath, depth: DepthClip, index: Int64[np.ndarray, " time"], subject: Subject
) -> tuple[Float64[np.ndarray, " time"], Float64[np.ndarray, " time"], Bool[np.ndarray, " time"]]:
    """Turn around the subject (degrees), distance as a multiple, and whether the eye is behind a surface."""
    eye = eye_in_world(path.cam_from_world)
    if depth.cam_from_world is not None:  # into the source camera of the frame that is shown
        source = depth.cam_from_world[index]
        eye = (source[:, :3, :3] @ eye[..., None])[..., 0] + source[:, :3, 3]
    to_source, to_eye = -subject.point, eye - subject.point
    far = np.linalg.norm(to_eye, axis=-1)
    near = float(np.linalg.norm(to_source))
    cos = (to_eye @ to_source) / np.maximum(far * near, 1e-12)
    px = np.nan_to_num(project(eye, depth.K[0]), nan=-1.0, posinf=-1.0, neginf=-1.0)
    h, w = depth.size_hw
    inside = (eye[:, 2] > 0) & (px >= 0).all(axis=1) & (px[:, 0] < w) & (px[:, 1] < h)
    x, y = np.clip(px[:, 0], 0, w - 1).astype(int), np.clip(px[:, 1], 0, h - 1).astype(int)
    behind = inside & (eye[:, 2] >= depth.depth[index, y, x])
    return np.degrees(np.arccos(np.clip(cos, -1, 1))), far / near, behind


def suggest(
    family: str,
    video: VideoClip,
    depth: DepthClip,
    *,
    budget: float = 0.2,
    limit: float = 180.0,
    fps: Fraction | None = None,
    num_frames: int = SUGGEST_FRAMES,
    size_px: int = SIZE_PX,
    rasterizer: Rasterizer | None = None,
    relative_to: RelativeTo = "source",
    progress: Progress | None = None,
) -> tuple[str, float]:
    """The largest path of a family whose unseen share stays within a budget on every frame.

    Args:
        family: A path in words with {} where the size goes: `orbit:yaw={}`, `dolly:out={}%`.
        video, depth: The source; frames are taken evenly.
        budget: Largest unseen share allowed, 0..1.
        limit: Largest size tried.
        fps: Of the output, default the source's.
        num_frames: Output frames that are looked at per size.
        size_px, rasterizer: As `preview_path`.
        relative_to: As `place_path`.
        progress: Told after every trial.

    Returns:
        The path in words, and its size: within `SUGGEST_TOLERANCE` of the first size that breaks the budget. The sizes
        are scanned in steps of limit / `SCAN_STEPS` and then bisected.
    """
    if "{}" not in family:
        raise InputError(f"path family {family!r}", "a path with {} for its size", "'orbit:yaw={}'")
    if not 0 < budget < 1:
        raise InputError(f"hole budget {budget}", "a share between 0 and 1", "--budget 0.2")
    if not limit > 0:
        raise InputError(f"limit {limit}", "a size > 0", "--limit 180")
    rule_depth = depth  # the full-size lens decides the mesh rule
    rasterizer = rasterizer or _cpu()
    pick = np.linspace(0, len(depth) - 1, min(num_frames, len(depth))).round().astype(np.int64)
    small_video, small_depth = shrink(*_take(video, depth, pick), SOURCE_PX)
    trials = 0

    def worst(size: float) -> float:
        nonlocal trials
        trials += 1
        if progress is not None:
            progress(trials, None, "trying")
        path = make_path(
            family.replace("{}", f"{size:.6g}"),
            first=rule_depth,
            num_frames=num_frames,
            fps=fps or video.fps,
            num_source_frames=len(depth),
        )
        path = place_path(path, depth.cam_from_world, relative_to)
        path = every_kth_pixel(_fitted(path, small_video.size_hw), size_px)
        return float(_unseen(path, small_video, small_depth, pick, rule_depth, rasterizer).max())

    low, high = 0.0, None
    for size in np.linspace(0, limit, SCAN_STEPS + 1)[1:]:
        if worst(float(size)) > budget:
            high = float(size)
            break
        low = float(size)
    while high is not None and high - low > SUGGEST_TOLERANCE:
        middle = (low + high) / 2
        low, high = (low, middle) if worst(middle) > budget else (middle, high)
    return family.replace("{}", f"{low:.4g}"), low


def _take(video: VideoClip, depth: DepthClip, pick: Int64[np.ndarray, " n"]) -> tuple[VideoClip, DepthClip]:
    poses = None if depth.cam_from_world is None else depth.cam_from_world[pick]
    return VideoClip(video.frames[pick], video.fps), DepthClip(depth.depth[pick], depth.K[pick], depth.unit, poses)


def _unseen(
    path: CameraPath,
    video: VideoClip,
    depth: DepthClip,
    pick: Int64[np.ndarray, " n"],
    full: DepthClip,
    rasterizer: Rasterizer,
) -> Float64[np.ndarray, " time"]:
    path = replace(path, source_time=nearest_source(path, len(depth), pick).astype(np.float64))
    render = render_clip(
        video,
        depth,
        path,
        rule=preview_rule(full),
        depth_range=DepthRange.of(depth.depth),
        rasterizer=rasterizer,
        keep_first=False,
    )
    return 1 - render.mask.mean(axis=(1, 2))


def render_picks(
    video: VideoClip,
    depth: DepthClip,
    path: CameraPath,
    picks: Int64[np.ndarray, " n"],
    *,
    size_px: int = SIZE_PX,
    rasterizer: Rasterizer | None = None,
) -> tuple[
    UInt8[np.ndarray, "n height width 3"], Bool[np.ndarray, "n height width"], UInt8[np.ndarray, "n height width 3"]
]:
    """Colour, mask and source of a few output frames, small, for a contact sheet."""
    rule = preview_rule(depth)
    video, depth = shrink(video, depth, SOURCE_PX)
    index = nearest_source(path, len(depth), None)[picks]
    part = CameraPath(path.cam_from_world[picks], path.K[picks], path.size_hw, index.astype(np.float64), path.name)
    render = render_clip(
        video,
        depth,
        every_kth_pixel(_fitted(part, video.size_hw), size_px),
        rule=rule,
        depth_range=DepthRange.of(depth.depth),
        rasterizer=rasterizer or _cpu(),
        keep_first=False,
    )
    import cv2

    size = (render.color.shape[2], render.color.shape[1])
    source = np.stack([cv2.resize(video.frames[i], size, interpolation=cv2.INTER_AREA) for i in index])
    return render.color, render.mask, source
