"""Source cameras from tracked points and depth, on a real RGB-D clip with known poses and on a made-up scene with a mover."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from ex4d.depth.estimators.given import fill_invalid
from ex4d.depth.source_cameras.odometry import Odometry, estimate_cameras
from ex4d.geometry.frames import invert_rigid, rigid, transform_points
from ex4d.geometry.pinhole import intrinsics, project, px_centers, unproject
from ex4d.geometry.rotations import so3_exp
from ex4d.geometry.similarity import path_length, pose_error
from ex4d.types import DepthClip, VideoClip


@pytest.fixture(scope="module")
def seven_scenes(shared):
    """(frames, sensor depth with holes filled, valid, K, cam_from_world) of the 49-frame window; world = first camera."""
    folder = shared / "videos" / "seven_scenes"
    names = sorted(folder.glob("*.color.jpg"))
    frames = np.stack([cv2.imread(str(n))[..., ::-1] for n in names])
    stem = [str(n).removesuffix(".color.jpg") for n in names]
    raw = np.stack([cv2.imread(s + ".depth.png", cv2.IMREAD_UNCHANGED) for s in stem])
    valid = (raw > 0) & (raw < 65535)
    depth = np.stack([fill_invalid(d / np.float32(1000), v, "7-Scenes") for d, v in zip(raw, valid, strict=True)])
    world_from_cam = np.stack([np.loadtxt(s + ".pose.txt") for s in stem])
    K = np.loadtxt(folder / "camera-intrinsics.txt").astype(np.float32)
    return frames, depth, valid, K, invert_rigid(world_from_cam) @ world_from_cam[0]


def test_estimated_cameras_of_a_real_clip_are_within_two_degrees_and_five_percent(seven_scenes):
    frames, depth, _, K, true = seven_scenes
    odometry = Odometry(align_depth=True)
    video = [VideoClip(frames[i : i + 20], Fraction(30)) for i in range(0, 49, 20)]
    clips = [
        DepthClip(depth[i : i + 20], np.tile(K, (len(v), 1, 1)), "metric")
        for i, v in zip((0, 20, 40), video, strict=True)
    ]
    posed = list(estimate_cameras(video, clips, odometry))
    poses = np.concatenate([clip.cam_from_world for clip in posed])
    angle, gap = pose_error(poses, true)
    print(
        f"worst of {len(poses)}: {angle.max():.2f} degrees, {gap.max() / path_length(true):.2%} of the path",
        odometry.summary(),
    )
    assert len(poses) == 49
    assert angle.max() < 2
    assert gap.max() < 0.05 * path_length(true)
    summary = odometry.summary()
    assert 0 <= summary["drift_end"] < 0.02 and summary["inlier_ratio_median"] > 0.5


def warp(frames, depth, valid, K, cam_from_world, source, target):
    """(source frame seen from the target camera, co-visible): every target pixel asks the source for its colour."""
    h, w = depth.shape[1:]
    points = unproject(px_centers((h, w)), depth[target].astype(np.float64), K).reshape(-1, 3)
    source_from_target = cam_from_world[source] @ invert_rigid(cam_from_world[target])
    there = transform_points(source_from_target, points)
    xy = (project(there, K) - 0.5).astype(np.float32).reshape(h, w, 2)
    color = cv2.remap(frames[source], xy[..., 0], xy[..., 1], cv2.INTER_LINEAR)
    nearest = np.round(xy).astype(int)
    inside = (nearest >= 0).all(-1) & (nearest[..., 0] < w) & (nearest[..., 1] < h) & valid[target]
    x, y = np.where(inside[..., None], nearest, 0).transpose(2, 0, 1)
    agree = np.abs(there[:, 2].reshape(h, w) - depth[source][y, x]) < 0.05
    return color, inside & valid[source][y, x] & agree


def psnr(a, b, mask):
    return 10 * np.log10(255**2 / np.mean((a[mask].astype(float) - b[mask]) ** 2))


def test_warping_a_real_frame_with_our_conventions_lands_where_the_other_frame_is(seven_scenes):
    frames, depth, valid, K, true = seven_scenes
    color, seen = warp(frames, depth, valid, K, true, 0, 5)
    warped, still = psnr(color, frames[5], seen), psnr(frames[0], frames[5], seen)
    print(f"{warped:.2f} dB warped, {still:.2f} dB without, {seen.mean():.0%} co-visible")
    assert seen.mean() > 0.8
    assert warped >= 27
    assert still < 20
    backwards, _ = warp(frames, depth, valid, K, invert_rigid(true), 0, 5)
    assert psnr(backwards, frames[5], seen) < warped - 5, "world_from_cam in place of cam_from_world must show"


def textured(rng, size):
    texture = rng.integers(0, 255, (size // 8, size // 8, 3)).astype(np.uint8)
    return cv2.resize(texture, (size, size), interpolation=cv2.INTER_CUBIC)


def room_with_a_mover(num_frames=12, size_hw=(240, 320)):
    """A textured back wall and floor seen from a moving camera, and a box that crosses the picture."""
    rng = np.random.default_rng(0)
    wall, box = textured(rng, 1024), textured(rng, 256)
    K = intrinsics(size_hw, 280.0)
    frames, depths, poses = [], [], []
    for t in range(num_frames):
        pose = rigid(so3_exp(np.array([0.002, 0.012, 0.004]) * t), np.array([-0.03, 0.01, -0.02]) * t)
        rays = unproject(px_centers(size_hw), np.ones(size_hw), K)
        eye = invert_rigid(pose)[:3, 3]
        direction = rays @ pose[:3, :3]
        # a wall that leans (z = 4 + 0.3 x), a floor (y = 1), a box face (z = 2.5) that moves to the right
        hits = [
            (4 + 0.3 * eye[0] - eye[2]) / (direction[..., 2] - 0.3 * direction[..., 0]),
            np.where(direction[..., 1] > 1e-6, (1 - eye[1]) / np.maximum(direction[..., 1], 1e-6), np.inf),
            (2.5 - eye[2]) / direction[..., 2],
        ]
        points = [eye + hit[..., None] * direction for hit in hits]
        center = np.array([-0.8 + 0.12 * t, 0.1])
        hits[2] = np.where((np.abs(points[2][..., :2] - center) < 0.35).all(-1), hits[2], np.inf)
        which = np.argmin(hits, axis=0)
        uv = [
            points[0][..., :2] * 120 + 500,
            points[1][..., [0, 2]] * 120 + 300,
            (points[2][..., :2] - center) * 250 + 128,
        ]
        looks = [cv2.remap(wall, *(u.astype(np.float32).transpose(2, 0, 1)), cv2.INTER_LINEAR) for u in uv[:2]]
        looks.append(cv2.remap(box, *(uv[2].astype(np.float32).transpose(2, 0, 1)), cv2.INTER_LINEAR))
        frames.append(np.choose(which[..., None], looks))
        depths.append(np.choose(which, hits))
        poses.append(pose)
    clip = DepthClip(np.stack(depths).astype(np.float32), np.tile(K, (num_frames, 1, 1)), "relative")
    return VideoClip(np.stack(frames).astype(np.uint8), Fraction(25)), clip, np.stack(poses)


@pytest.fixture(scope="module")
def made_up():
    return room_with_a_mover()


def test_a_mover_does_not_bend_the_camera_path(made_up):
    video, depth, true = made_up
    odometry = Odometry()
    (posed,) = estimate_cameras([video], [depth], odometry)
    angle, gap = pose_error(posed.cam_from_world, true)
    print(angle.max(), gap.max() / path_length(true), odometry.summary())
    assert angle.max() < 0.5
    assert gap.max() < 0.03 * path_length(true)
    assert odometry.summary()["inlier_ratio_worst"] < 1, "points on the box are movers"


def test_depth_of_another_scale_gives_the_same_cameras_in_that_scale(made_up):
    video, depth, _ = made_up
    big = DepthClip(depth.depth * np.float32(7), depth.K, depth.unit)
    one, seven = (next(estimate_cameras([video], [clip])).cam_from_world for clip in (depth, big))
    np.testing.assert_allclose(seven[:, :3, :3], one[:, :3, :3], atol=2e-3)
    np.testing.assert_allclose(seven[:, :3, 3] / 7, one[:, :3, 3], atol=5e-3)


def test_a_still_camera_stays_and_a_blank_picture_holds_the_pose(made_up):
    video, depth, _ = made_up
    still = VideoClip(np.repeat(video.frames[:1], 4, axis=0), video.fps)
    blank = VideoClip(np.full_like(still.frames, 90), video.fps)
    clip = DepthClip(np.repeat(depth.depth[:1], 4, axis=0), depth.K[:4], "relative")
    (posed,) = estimate_cameras([still], [clip])
    np.testing.assert_allclose(posed.cam_from_world, np.tile(np.eye(4), (4, 1, 1)), atol=1e-4)
    (held,) = estimate_cameras([blank], [clip])
    np.testing.assert_array_equal(held.cam_from_world, np.tile(np.eye(4), (4, 1, 1)))


def test_one_frame_is_the_world(made_up):
    video, depth, _ = made_up
    one = DepthClip(depth.depth[:1], depth.K[:1], "relative")
    (posed,) = estimate_cameras([VideoClip(video.frames[:1], video.fps)], [one])
    np.testing.assert_array_equal(posed.cam_from_world[0], np.eye(4))
