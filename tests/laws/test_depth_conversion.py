"""Laws of depth conversion, intrinsics and edges."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ex4d.depth.conversion import FAR_OVER_NEAR, DisparityToDepth, released_depth
from ex4d.depth.estimators.plane import PlaneParameters
from ex4d.depth.intrinsics import choose_intrinsics, default_focal, focal_from_metadata
from ex4d.depth.maps.edges import clean_edges, flying_pixels
from ex4d.errors import InputError
from ex4d.geometry.pinhole import intrinsics, px_centers, unproject


@pytest.mark.parametrize("d, z", [(1, 2.5641), (0.5, 5.1282), (0.1, 25.641), (0.0256, 100.16), (0, 10000)])
def test_released_conversion_is_the_reference_formula(d, z):
    assert abs(released_depth(np.array([d], np.float32), 0, 1)[0] / z - 1) < 1e-4


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_robust_conversion_does_not_know_the_scale_or_shift_of_disparity(seed, scale, shift):
    d = np.random.default_rng(seed).uniform(0, 1, (1, 40, 40)).astype(np.float32)
    other = (scale * d + shift).astype(np.float32)
    a, b = (DisparityToDepth.robust(x.ravel())(x) for x in (d, other))
    np.testing.assert_allclose(a, b, rtol=2e-3)
    assert a.min() >= 0.5 and a.max() <= FAR_OVER_NEAR * 1.0001


def test_one_wild_pixel_moves_the_reference_and_not_the_default():
    d = np.linspace(0.2, 0.8, 10000, dtype=np.float32).reshape(1, 100, 100)
    wild = d.copy()
    wild[0, 0, 0] = 50
    robust = [DisparityToDepth.robust(x.ravel())(x)[0, 50, 50] for x in (d, wild)]
    reference = [released_depth(x, x.min(), x.max())[0, 50, 50] for x in (d, wild)]
    assert abs(robust[0] / robust[1] - 1) < 1e-3
    assert reference[1] > 20 * reference[0]


def test_equal_disparity_is_refused():
    with pytest.raises(InputError, match="same value"):
        DisparityToDepth.robust(np.full(100, 3.0))


@given(st.integers(16, 4000), st.integers(16, 4000), st.floats(0.2, 4))
def test_default_focal_scales_with_the_picture(h, w, factor):
    assert math.isclose(default_focal((512, 512)), 500)
    assert math.isclose(default_focal((h * factor, w * factor)), factor * default_focal((h, w)))  # type: ignore[arg-type]


def test_intrinsics_come_from_the_first_that_knows():
    size, K = (480, 640), intrinsics((480, 640), 700)
    exif = {"EXIF FocalLengthIn35mmFilm": "26"}
    chain = [
        ({"reference": True}, 500),
        ({"K": K}, 700),
        ({"fov_deg": 90.0}, 320),
        ({"model_K": intrinsics(size, 650)}, 650),
        ({"metadata": exif}, 26 / math.hypot(36, 24) * 800),
        ({}, default_focal(size)),
    ]
    given_so_far: dict = {}
    for more, focal in reversed(chain):
        given_so_far = {**given_so_far, **more}
        found = choose_intrinsics(size, **given_so_far)
        assert math.isclose(found.K[0, 0], focal, rel_tol=1e-6), found.origin


@pytest.mark.parametrize(
    "tags, focal",
    [
        ({"com.apple.quicktime.camera.focal_length.35mm_equivalent": 43.2666}, 1000),
        (
            {
                "FocalLength": "35/1",
                "FocalPlaneXResolution": 100,
                "FocalPlaneResolutionUnit": 4,
                "PixelXDimension": 3500,
            },
            800,
        ),
        ({"hfov": "90"}, 400),
        ({"FocalLengthIn35mmFilm": "0"}, None),
        ({"FocalLength": "4.2 mm"}, None),
        ({"title": "holiday"}, None),
    ],
)
def test_focal_length_from_metadata(tags, focal):
    found = focal_from_metadata(tags, (600, 800))
    assert (found is None) if focal is None else abs(found[0] / focal - 1) < 1e-4


@pytest.mark.parametrize("bad", [{"fov_deg": 0.0}, {"fov_deg": 180.0}, {"K": np.eye(3)}, {"K": np.zeros((2, 2))}])
def test_intrinsics_no_lens_has_are_refused(bad):
    with pytest.raises(InputError):
        choose_intrinsics((480, 640), **bad)


@given(st.floats(-60, 60), st.floats(-60, 60), st.floats(0.5, 50))
def test_a_plane_is_a_plane(tilt, turn, distance):
    K = intrinsics((24, 32), 40)
    z = PlaneParameters(distance, tilt, turn).depth(K, (24, 32)).astype(np.float64)
    points = unproject(px_centers((24, 32)), z, K)[z < 19 * distance]
    assert len(points) > 100
    values = np.linalg.svd(points - points.mean(0), compute_uv=False)
    assert values[2] < 1e-4 * values[0]


def step_with_blur():
    """A near square before a far wall, its depth blurred as networks and resizing do; (truth, blurred, colour)."""
    truth = np.full((80, 80), 5, np.float32)
    truth[20:60, 25:65] = 2
    color = np.where(truth[..., None] < 3, np.uint8(200), np.uint8(40)) * np.ones(3, np.uint8)
    blurred = 1 / cv2.GaussianBlur(1 / truth, (0, 0), 1.2)
    return truth, blurred.astype(np.float32), color


def test_flying_pixels_land_on_the_side_whose_colour_they_have():
    truth, blurred, color = step_with_blur()
    cleaned = clean_edges(blurred, color)
    wrong = [float((np.abs(np.log(z / truth)) > 0.1).mean()) for z in (blurred, cleaned)]
    print("pixels off by more than 10 %:", wrong)
    assert wrong[0] > 0.05 and wrong[1] < 0.4 * wrong[0]
    between = (cleaned > 2.4) & (cleaned < 4.2)
    assert between.sum() < 0.2 * ((blurred > 2.4) & (blurred < 4.2)).sum()


@given(st.integers(0, 2**32 - 1))
def test_smooth_depth_and_sharp_steps_keep_their_bits(seed):
    rng = np.random.default_rng(seed)
    truth, _, color = step_with_blur()
    np.testing.assert_array_equal(clean_edges(truth, color), truth)
    slope = (
        3 + rng.uniform(-0.006, 0.006) * np.arange(80)[:, None] + rng.uniform(-0.006, 0.006) * np.arange(80)
    ).astype(np.float32)
    assert not flying_pixels(slope)[0].any()
    np.testing.assert_array_equal(clean_edges(slope, color), slope)


@given(st.floats(-40, 30), st.floats(-0.3, 0.3), st.integers(0, 2**32 - 1))
def test_a_floor_that_runs_to_the_horizon_is_no_edge(horizon, lean, seed):
    y, x = np.mgrid[:80, :90].astype(np.float32)
    inverse = y + lean * x - horizon
    floor = (100 / inverse[inverse.min(axis=1) > 1]).astype(np.float32)
    color = np.random.default_rng(seed).integers(0, 255, (*floor.shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(clean_edges(floor, color), floor)
