"""The preview against the full-size render, and `suggest` against a search by hand."""

from fractions import Fraction

import numpy as np
import pytest

from ex4d.cameras.make import make_path
from ex4d.cameras.subject import find_subject
from ex4d.errors import InputError
from ex4d.geometry.pinhole import intrinsics
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.preview.plot import contact_sheet, plot, sparkline, terminal_rows
from ex4d.preview.report import every_kth_pixel, grazing, preview_path, shrink, suggest
from ex4d.render.clip import render_clip
from ex4d.render.make import get_rasterizer
from ex4d.types import DepthClip, VideoClip


def clip(n=5, h=180, w=320):
    """A box in front of a slanted floor and a wall, moving sideways."""
    y, x = np.mgrid[:h, :w]
    depth = np.minimum(6.0, 2.2 / np.maximum((y - h / 2) / h, 1e-3)).astype(np.float32)
    frames, depths = [], []
    for t in range(n):
        d = depth.copy()
        left = 90 + 6 * t
        d[60:140, left : left + 90] = 2.5 + 0.2 * np.sin(x[60:140, left : left + 90] / 9)
        depths.append(d)
        frames.append(np.stack([x % 256, y % 256, (40 * d) % 256], -1).astype(np.uint8))
    K = np.repeat(intrinsics((h, w), 300.0)[None], n, axis=0)
    return VideoClip(np.stack(frames), Fraction(24)), DepthClip(np.stack(depths), K)


def full_render(video, depth, path):
    options = {"rule": MeshRule(), "depth_range": DepthRange.of(depth.depth), "rasterizer": get_rasterizer("cpu")}
    return render_clip(video, depth, path, keep_first=False, **options)


SPECS = [
    "orbit:60",
    "-90",
    "orbit:yaw=15,pitch=20",
    "dolly:in=50%",
    "dolly:out=60%",
    "truck:right=40%",
    "roll:30",
    "180",
]


@pytest.mark.parametrize("spec", SPECS)
def test_the_reported_hole_share_is_that_of_the_full_size_render(spec):
    video, depth = clip()
    path = make_path(spec, first=depth, num_frames=5, fps=video.fps)
    report = preview_path(video, depth, path, size_px=160)
    unseen = 1 - full_render(video, depth, path).mask.mean(axis=(1, 2))
    np.testing.assert_allclose(report.unseen, unseen, rtol=0, atol=0.01)
    assert (report.largest_hole <= report.unseen + 1e-9).all()


def test_a_preview_is_every_kth_pixel_of_the_full_render():
    video, depth = clip(2)
    path = make_path("orbit:30", first=depth, num_frames=2, fps=video.fps)
    small = every_kth_pixel(path, 107)
    assert small.size_hw == (60, 107)
    picked = full_render(video, depth, path).mask[:, 1::3, 1::3]
    same = full_render(video, depth, small).mask == picked
    assert same.mean() > 0.999, "equal but for rays that graze an edge"


def test_what_a_report_says_of_a_known_path():
    video, depth = clip()
    towards_the_box = make_path("dolly:in=60%,at=near", first=depth, num_frames=5, fps=video.fps)
    report = preview_path(video, depth, towards_the_box, subject=find_subject(depth, "near"))
    distance = 1 - np.linspace(0, 0.6, 5)
    np.testing.assert_allclose(report.distance, distance, atol=1e-6)
    np.testing.assert_allclose(report.past_safe_distance, np.maximum(0.5 - distance, 0), atol=1e-6)
    assert report.seen[0] == 1 and report.largest_hole[0] == 0 and not report.collision.any()
    through = preview_path(video, depth, make_path("dolly:in=90%,at=near + truck:right=8%", first=depth, num_frames=5, fps=video.fps))  # fmt: skip
    beyond = preview_path(video, depth, make_path("dolly:in=95%,at=5.9", first=depth, num_frames=5, fps=video.fps))
    assert not through.collision.any() and beyond.collision[-1] and not beyond.collision[0]
    wide = preview_path(video, depth, make_path("orbit:90", first=depth, num_frames=5, fps=video.fps))
    np.testing.assert_allclose(wide.turn_deg, np.linspace(0, 90, 5), atol=1e-3)
    np.testing.assert_allclose(wide.past_safe_deg[-1], 30, atol=1e-3)


def test_grazing_surfaces_are_those_seen_at_a_flat_angle():
    K = intrinsics((60, 80), 60.0)
    y = (np.arange(60) + 0.5 - 30)[:, None] * np.ones(80)
    for below, expected in ((8.0, False), (70.0, True)):  # a plane tilted by this many degrees against the picture
        slope = np.tan(np.radians(below))
        plane = (5 / (1 - slope * y / 60)).astype(np.float32)
        plane = np.where((plane > 0) & (plane < 300), plane, 300).astype(np.float32)
        middle = grazing(plane, K)[28:32, 38:42]
        assert middle.all() == (below > 75) or (middle.any() == expected and below < 75) or not middle.any()
    steep = (5 / np.maximum(1 - np.tan(np.radians(82)) * y / 60, 1e-2)).astype(np.float32)
    assert grazing(steep, K)[29:31].all() and not grazing(np.full((60, 80), 5, np.float32), K).any()
    edge = np.full((60, 80), 5, np.float32)
    edge[:, 40:] = 9
    assert not grazing(edge, K).any(), "a depth edge alone is not a slope"


def test_suggest_finds_what_a_search_degree_by_degree_finds():
    video, depth = clip(3)
    words, size = suggest("orbit:yaw={}", video, depth, budget=0.25, limit=90, num_frames=5, size_px=160)

    def worst(degrees):
        path = make_path(f"orbit:yaw={degrees}", first=depth, num_frames=5, fps=video.fps, num_source_frames=3)
        return preview_path(video, depth, path, size_px=160).unseen.max()

    brute = next(degrees for degrees in range(1, 91) if worst(degrees) > 0.25)
    assert brute - 2 <= size <= brute and words == f"orbit:yaw={size:.4g}"
    fine = next(d for d in np.arange(brute - 1, brute + 0.2, 0.1) if worst(float(d)) > 0.25)
    assert abs(size - fine) < 1


def test_suggest_refuses_what_it_cannot_search():
    video, depth = clip(2)
    for family, options in (("orbit:60", {}), ("orbit:yaw={}", {"budget": 0.0}), ("orbit:yaw={}", {"limit": -1.0})):
        with pytest.raises(InputError):
            suggest(family, video, depth, **options)


def test_pictures_and_text_of_a_report():
    video, depth = clip()
    path = make_path("orbit:50", first=depth, num_frames=5, fps=video.fps)
    report = preview_path(video, depth, path, size_px=128)
    picture = plot(report, "orbit:50")
    assert picture.shape[2] == 3 and (picture != 255).any()
    small, _ = shrink(video, depth, 128)
    picks = np.array([0, 4])
    masks = np.zeros((2, *small.size_hw), bool)
    sheet = contact_sheet(small.frames[picks], masks, small.frames[picks], report, picks)
    assert ((sheet == [255, 0, 200]).all(-1)).sum() == 2 * masks[0].size, "unseen pixels are magenta"
    assert sparkline(np.array([0, 0.5, 1.0])) == " ▄█"
    assert [row[0] for row in terminal_rows(report)] == [
        "unseen",
        "largest hole",
        "grazing",
        "turn",
        "past safe",
        "collisions",
    ]
