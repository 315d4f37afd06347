"""Colours that are read are the colours that were stored: every matrix, range, depth, alpha and HDR transfer."""

import av
import numpy as np
import pytest
from video_made import LUMA, enlarged, middles, patches, planar_frame, rgb_frame, write_frames, yuv_planes

from ex4d.io.video.hdr import bt709_from_primaries, nits_from_pq, pq_from_nits, rolled_off
from ex4d.io.video.read import VideoWriter, read_video

UNTAGGED = 2


def read_one(path):
    return read_video(path).frames[0]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", list(LUMA))
@pytest.mark.parametrize(
    ("pix_fmt", "bits"), [("yuv420p", 8), ("yuv422p10le", 10), ("yuv444p10le", 10), ("yuv420p12le", 12)]
)
def test_tagged_colors_come_back(tmp_path, matrix, full, pix_fmt, bits):
    colors = patches()
    frame = planar_frame(yuv_planes(enlarged(colors) / 255, matrix, full, bits), pix_fmt)
    path = write_frames(tmp_path / "v.mkv", [frame], colorspace=LUMA[matrix][2], color_range=2 if full else 1)
    error = np.abs(middles(read_one(path)) - colors)
    assert error.max() <= (2 if bits == 8 else 1)
    assert error.mean() < 0.6


@pytest.mark.parametrize(("hw", "matrix"), [((96, 128), "601"), ((720, 1280), "709")])
def test_untagged_colors_are_read_as_players_read_them(tmp_path, hw, matrix):
    picture = np.broadcast_to(np.array([200.0, 60, 30]), (*hw, 3))
    frame = planar_frame(yuv_planes(picture / 255, matrix, False, 8), "yuv420p")
    path = write_frames(tmp_path / "v.mkv", [frame])
    assert np.abs(read_one(path)[hw[0] // 2, hw[1] // 2] - picture[0, 0]).max() <= 2


def test_a_wrong_matrix_or_range_would_be_seen(tmp_path):
    """The tolerance above is small against the mistakes it guards from."""
    colors = patches()
    frame = planar_frame(yuv_planes(enlarged(colors) / 255, "709", False, 8), "yuv444p")
    for tags in ({"colorspace": 6, "color_range": 1}, {"colorspace": 1, "color_range": 2}):
        path = write_frames(tmp_path / "v.mkv", [frame], **tags)
        assert np.abs(middles(read_one(path)) - colors).max() > 10


def test_alpha_is_composited_on_black(tmp_path):
    rgba = np.zeros((16, 32, 4), np.uint8)
    rgba[:, :16], rgba[:, 16:] = (200, 100, 50, 255), (200, 100, 50, 102)
    path = write_frames(tmp_path / "v.mkv", [av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="bgra")])
    picture = read_one(path)
    assert picture[8, 8].tolist() == [200, 100, 50]
    assert picture[8, 24].tolist() == [80, 40, 20]


def read_signal(tmp_path, signal, trc, primaries=9):
    """A flat BT.2020 12-bit video of a non-linear signal 0..1, read as 8-bit RGB."""
    picture = np.broadcast_to(np.asarray(signal, float), (16, 16, 3))
    frame = planar_frame(yuv_planes(picture, "2020", False, 12), "yuv444p12le")
    path = write_frames(
        tmp_path / "v.mkv", [frame], colorspace=9, color_range=1, color_trc=trc, color_primaries=primaries
    )
    return read_one(path)[8, 8].astype(float)


@pytest.mark.parametrize("nits", [0.5, 5, 26, 58, 87])
def test_pq_below_the_knee_keeps_its_light(tmp_path, nits):
    expected = 255 * (nits / 203) ** (1 / 2.4)  # BT.1886 of light relative to the white of BT.2408
    assert np.abs(read_signal(tmp_path, [pq_from_nits(np.array(nits))] * 3, 16) - expected).max() <= 1.5


def test_pq_constants():
    # 100 nits is 0.508, 203 is 0.581 and 1000 is 0.752 of the PQ signal: BT.2408 table 1 and annex.
    np.testing.assert_allclose(pq_from_nits(np.array([100.0, 203, 1000])), [0.508, 0.5807, 0.7518], atol=2e-4)
    nits = np.geomspace(0.01, 10000, 50)
    np.testing.assert_allclose(nits_from_pq(pq_from_nits(nits)), nits, rtol=1e-8)


def test_highlights_roll_off_to_white():
    nits = np.linspace(0, 10000, 5000)
    curve = rolled_off(nits)
    assert (np.diff(curve) >= -1e-9).all()
    np.testing.assert_allclose(curve[nits < 87], nits[nits < 87], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(curve[nits >= 1000], 203, rtol=1e-6)


def test_pq_highlights_keep_their_hue(tmp_path):
    r, g, b = read_signal(tmp_path, pq_from_nits(np.array([600.0, 600, 300])), 16)
    assert abs(r - g) <= 2 and r > 200 and b / r < 0.85


def test_hlg_reference_white_is_pq_reference_white(tmp_path):
    hlg = read_signal(tmp_path, [0.75] * 3, 18)  # BT.2408: 75 % HLG is 203 nits
    pq = read_signal(tmp_path, [pq_from_nits(np.array(203.0))] * 3, 16)
    assert np.abs(hlg - pq).max() <= 2
    assert 200 < hlg[0] < 250


def test_wide_gamut_sdr_is_brought_to_bt709(tmp_path):
    # Half-bright red of BT.709, expressed in BT.2020: the matrix of BT.2087-0 section 4 (rounded there to four digits).
    to_2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    np.testing.assert_allclose(bt709_from_primaries(9) @ to_2020, np.eye(3), atol=5e-4)
    color = np.array([200.0, 60, 30])
    signal = (to_2020 @ (color / 255) ** 2.4) ** (1 / 2.4)
    assert np.abs(read_signal(tmp_path, signal, 14) - color).max() <= 2


def test_written_h264_says_its_colors_and_keeps_them(tmp_path):
    colors = patches()
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        for _ in range(3):
            writer.write(enlarged(colors).astype(np.uint8))
    with av.open(str(tmp_path / "v.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.pix_fmt, context.colorspace, context.color_range) == ("yuv420p", 1, 1)
        assert (context.color_primaries, context.color_trc) == (1, 1)
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat"), "players start before the file has arrived"
    error = np.abs(middles(read_one(tmp_path / "v.mp4")) - colors)
    assert error.mean() < 3 and error.max() < 16  # lossy


def test_rgb_stays_as_it_is(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (17, 23, 3), dtype=np.uint8)
    np.testing.assert_array_equal(read_one(write_frames(tmp_path / "v.mkv", [rgb_frame(picture)])), picture)
