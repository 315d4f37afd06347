"""Depth from the embedded network with tiny random weights: one scale over windows, any size and length, refusal of changed weights."""

import hashlib
import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from ex4d.cli.main import main
from ex4d.depth.estimators.nano import NanoDepth, available, load_nano, network_size
from ex4d.depth.intrinsics import choose_intrinsics
from ex4d.depth.make import make_depth
from ex4d.depth.maps.recursive_filter import smooth_both_ways
from ex4d.depth.maps.upsample import upsample_map
from ex4d.errors import InputError, WeightsError
from ex4d.io.video.read import VideoWriter
from ex4d.models.depth.nano import ClipDepthNetwork
from ex4d.models.embedded import load as embedded
from ex4d.system.array_store import ArrayStore, MapSpool
from ex4d.types import VideoClip


class Bottom(torch.nn.Module):
    """1/z from brightness, with another scale and shift at every call, as windows have them."""

    def __init__(self, fits=((1.0, 0.0),)):
        super().__init__()
        self.anchor, self.fits, self.calls = torch.nn.Parameter(torch.zeros(1)), fits, 0

    def forward(self, video):
        scale, shift = self.fits[self.calls % len(self.fits)]
        self.calls += 1
        return scale * (2 + video.mean(dim=1)) + shift


def pictures(frames, h=64, w=64, seed=0):
    """Blocks of random brightness that slide slowly."""
    rng = np.random.default_rng(seed)
    wide = np.kron(rng.integers(40, 220, (-(-h // 8), -(-(w + frames) // 8) + 1)), np.ones((8, 8))).astype(np.uint8)
    return np.stack([wide[:h, t // 4 : t // 4 + w, None].repeat(3, axis=-1) for t in range(frames)])


def estimate(estimator, frames, chunk=16):
    clips = [VideoClip(frames[t : t + chunk], Fraction(25)) for t in range(0, len(frames), chunk)]
    out = list(estimator.estimate(clips))
    assert [len(clip) for clip in out] == [len(clip) for clip in clips] and out[0].K.shape[1:] == (3, 3)
    return np.concatenate([clip.depth for clip in out])


def nano(network=None, size_hw=(64, 64), **options):
    return NanoDepth(
        network or Bottom(), choose_intrinsics(size_hw), **{"short_px": 64, "window": 9, "overlap": 3, **options}
    )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder like the package's, with a tiny network."""
    folder = tmp_path_factory.mktemp("nano")
    torch.manual_seed(0)
    network = ClipDepthNetwork(**TINY)
    network.save_pretrained(folder / "depth")
    for path in (folder / "depth").iterdir():
        path.chmod(0o644)
    name = f"depth/{embedded.WEIGHTS}"
    found = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / embedded.HASHES).write_text(json.dumps({name: found}))
    return folder


TINY = {"widths": (16, 16, 28), "blocks": (1, 1, 1), "decoder_blocks": (1, 1)}


@pytest.mark.parametrize("frames", [10, 31])
def test_planted_scales_and_shifts_of_windows_are_found(frames):
    planted = ((1.0, 0.0), (2.5, 0.4), (0.3, -0.1), (1.7, 0.9), (0.8, 0.0))
    network = Bottom(planted)
    found = nano(network, decay=0.0)
    maps = np.stack(list(found.maps(pictures(frames))))
    expected = np.stack(list(nano(Bottom(), decay=0.0).maps(pictures(frames))))
    np.testing.assert_allclose(maps, expected, rtol=2e-4)
    fits: Any = found.manifest()["windows"]
    assert len(fits) == network.calls > 1
    for fit, (scale, shift) in zip(fits, planted, strict=False):
        assert fit["scale"] * scale == pytest.approx(1, rel=1e-3)
        assert fit["scale"] * shift + fit["shift"] == pytest.approx(0, abs=1e-3)


def test_a_sixth_of_wrong_pixels_in_a_window_does_not_move_its_scale():
    class Broken(Bottom):
        def forward(self, video):
            out = super().forward(video)
            if self.calls == 2:
                out[..., :10, :] = 9
            return out

    maps = np.stack(list(nano(Broken(((1.0, 0.0), (2.0, 0.3)))).maps(pictures(15))))
    expected = np.stack(list(nano().maps(pictures(15))))
    np.testing.assert_allclose(maps[9:, 10:], expected[9:, 10:], rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 3, 9, 10, 100])
def test_every_frame_gets_depth_whatever_the_chunks(frames):
    video = pictures(frames, 40, 48)
    depth = estimate(nano(size_hw=(40, 48), short_px=32), video)
    assert depth.shape == video.shape[:3] and np.isfinite(depth).all()
    assert depth.min() >= 0.5 and depth.max() <= 35
    if frames < 100:
        again = estimate(nano(size_hw=(40, 48), short_px=32), video, 7)
        np.testing.assert_array_equal(again, depth)


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((720, 1280), (256, 448)),
        ((1280, 720), (448, 256)),
        ((64, 64), (256, 256)),
        ((33, 47), (256, 352)),
        ((480, 640), (256, 352)),
        ((100, 4000), (256, 640)),
    ],
)
def test_the_network_sees_about_256_px_on_the_short_side(size_hw, expected):
    assert network_size(size_hw) == expected


@pytest.mark.parametrize("size_hw", [(33, 47), (64, 64), (90, 50), (16, 200)])
def test_the_real_architecture_takes_any_size(weights, size_hw):
    estimator = load_nano(choose_intrinsics(size_hw), folder=weights)
    depth = estimate(estimator, pictures(2, *size_hw))
    assert depth.shape == (2, *size_hw) and np.isfinite(depth).all() and (depth > 0).all()
    np.testing.assert_array_equal(
        estimate(load_nano(choose_intrinsics(size_hw), folder=weights), pictures(2, *size_hw)), depth
    )
    assert len(str(estimator.weights["sha256"])) == 64


def test_windows_leave_no_seam():
    maps = np.log(np.stack(list(nano(Bottom(((1, 0), (3, 0.5), (0.5, 0.2)))).maps(pictures(24)))))
    step = np.abs(np.diff(maps, axis=0)).mean(axis=(1, 2))
    inside, seams = step[:5].max(), step[[5, 6, 7, 8, 11, 12, 13, 14]].max()
    assert seams <= inside + 1e-3


def test_averaging_calms_what_stands_still_and_leaves_a_mover_its_depth():
    rng = np.random.default_rng(0)
    background = np.kron(rng.integers(60, 200, (12, 16)), np.ones((8, 8))).astype(np.uint8)
    frames, truth = np.repeat(background[None, ..., None], 24, 0).repeat(3, -1), np.full((24, 96, 128), 0.2, np.float32)
    patch = np.kron(rng.integers(0, 255, (8, 8)), np.ones((4, 4))).astype(np.uint8)
    for t in range(24):
        frames[t, 30:62, 4 + 3 * t : 36 + 3 * t] = patch[..., None]
        truth[t, 30:62, 4 + 3 * t : 36 + 3 * t] = 0.8
    noisy = truth * np.exp(rng.normal(0, 0.03, (24, 1, 1)) + rng.normal(0, 0.01, truth.shape)).astype(np.float32)
    with ArrayStore() as store:
        a, b = MapSpool(store), MapSpool(store)
        for frame, map_ in zip(frames, noisy, strict=True):
            a.append(frame[None])
            b.append(map_[None])
        calm = np.stack(list(smooth_both_ways(a, b, store)))
    still = np.ones((96, 128), bool)
    still[26:66] = False

    def flicker(maps):
        return np.abs(np.diff(np.log(maps[:, still]), n=2, axis=0)).mean()

    mover = (truth > 0.5)[2:-2]
    off = [np.abs(np.log(maps / truth))[2:-2][mover].mean() for maps in (noisy, calm)]
    print(f"flicker {flicker(noisy):.4f} to {flicker(calm):.4f}; mover off by {off[0]:.4f} and {off[1]:.4f}")
    assert flicker(calm) < flicker(noisy) / 5
    assert off[1] < off[0] + 0.02


def test_edges_stand_where_the_picture_has_them():
    inside = (np.hypot(*np.mgrid[-96:96, -128:128]) < 60)[..., None]
    color = np.where(inside, np.uint8(210), np.uint8(60)).repeat(3, -1)
    import cv2

    small = cv2.resize(color, (64, 48), interpolation=cv2.INTER_AREA)
    blurred = cv2.GaussianBlur(np.where(small[..., 0] > 135, 0.9, 0.2).astype(np.float32), (0, 0), 0.8)
    up = upsample_map(blurred, small, color)
    plain = cv2.resize(blurred, (256, 192), interpolation=cv2.INTER_LINEAR)
    truth = np.where(inside[..., 0], 0.9, 0.2)
    wrong = [float((np.abs(np.log(map_ / truth)) > 0.2).mean()) for map_ in (plain, up)]
    print("pixels off by a fifth: bilinear, ours", wrong)
    assert wrong[0] > 0.03 and wrong[1] < 0.2 * wrong[0]


def test_finished_windows_are_not_made_again(tmp_path):
    network = Bottom()
    first = estimate(nano(network, work_dir=tmp_path), pictures(12))
    calls = network.calls
    np.testing.assert_array_equal(estimate(nano(network, work_dir=tmp_path), pictures(12)), first)
    assert network.calls == calls


def test_nan_and_empty_videos_are_refused():
    with pytest.raises(InputError, match="NaN"):
        estimate(nano(Bottom(((float("nan"), 0.0),))), pictures(3))
    with pytest.raises(InputError, match="without frames"):
        list(nano().estimate([]))


def test_the_embedded_weights_are_found_by_name_and_by_auto(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(embedded, "FOLDER", weights)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.delenv("EX4D_MODELS", raising=False)
    assert available()
    assert [make_depth(spec, size_hw=(64, 64)).name for spec in ("nano", "auto")] == ["nano", "nano"]


@pytest.mark.parametrize(("damage", "said"), [("missing", "are missing|no embedded weights"), ("changed", "has hash")])
def test_missing_and_changed_weights_are_one_line_and_leave_nothing(
    weights, monkeypatch, tmp_path, capsys, damage, said
):
    import re
    import shutil

    folder = tmp_path / "weights"
    if damage == "changed":
        shutil.copytree(weights, folder)
        with (folder / "depth" / embedded.WEIGHTS).open("ab") as stream:
            stream.write(b"x")
    monkeypatch.setattr(embedded, "FOLDER", folder)
    with VideoWriter(tmp_path / "in.mp4", Fraction(25)) as writer:
        writer.write(pictures(2))
    out = tmp_path / "out"
    assert main(["depth", str(tmp_path / "in.mp4"), "--model", "nano", "--out", str(out)]) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(said, error) and "--force-reinstall" in error and len(error.splitlines()) == 1
    assert not (out / "depth.npz").exists()
    with pytest.raises(WeightsError):
        make_depth("nano", size_hw=(64, 64))


@pytest.mark.parametrize("seed", [100_007, 100_008])
def test_the_shipped_weights_see_the_depth_of_scenes_they_never_saw(seed):
    from ex4d.evaluate.metrics.depth import fitted, ramp, score
    from ex4d.scenes.scene import FAMILIES, make_scene

    assert available()
    video, truth = make_scene(seed, FAMILIES[seed % len(FAMILIES)]).source_clip((192, 192), 6)
    valid = np.isfinite(truth.depth)
    ours = estimate(load_nano(choose_intrinsics((192, 192))), video.frames)
    errors = [score(fitted(d, truth.depth, valid), truth.depth, valid).abs_rel for d in (ours, ramp(ours.shape))]
    assert errors[0] < 0.15 and errors[0] < errors[1] / 2


def test_what_a_mover_hides_does_not_leak_into_it():
    """A bright square slides over a wall of the same grain: flow and brightness often agree by chance, depth never does."""
    rng = np.random.default_rng(0)
    wall = rng.integers(90, 160, (64, 96)).astype(np.uint8)
    frames, depths = [], []
    for t in range(12):
        picture, disparity = wall.copy(), np.full((64, 96), 0.2, np.float32)
        x = 10 + 5 * t
        picture[20:44, x : x + 20], disparity[20:44, x : x + 20] = rng.integers(90, 160, (24, 20)), 0.5
        frames.append(picture[..., None].repeat(3, axis=-1)), depths.append(disparity)
    with ArrayStore() as store:
        colors, maps = MapSpool(store), MapSpool(store)
        colors.append(np.stack(frames)), maps.append(np.stack(depths))
        found = np.stack(list(smooth_both_ways(colors, maps, store)))
    np.testing.assert_allclose(found, depths, rtol=0.1)  # a wide gate: 0.7 off
