"""Which frames come, when, how large and which way up; cuts, audio and the lossless round trip."""

from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_made import grey_frames, rgb_frame, write_frames

from ex4d.errors import InputError
from ex4d.io.video.color import oriented
from ex4d.io.video.cuts import find_cuts
from ex4d.io.video.read import VideoWriter, crop_for_aspect, open_video, read_video


def levels(clip) -> list[int]:
    return clip.frames[:, 0, 0, 0].tolist()


@pytest.fixture
def ramp(tmp_path):
    """40 frames at 25 per second; frame i has level 5 i."""
    return write_frames(tmp_path / "ramp.mkv", grey_frames([5 * i for i in range(40)]))


def test_a_constant_rate_gives_every_frame_once(ramp):
    source = open_video(ramp)
    assert (source.fps, source.num_frames, source.size_hw) == (25, 40, (16, 24))
    assert levels(read_video(ramp)) == [5 * i for i in range(40)]
    assert [len(chunk) for chunk in source.chunks(16)] == [16, 16, 8]
    assert [len(chunk) for chunk in source.chunks(16)] == [16, 16, 8], "chunks start again"


@pytest.mark.parametrize("start", [0.04, 0.5, 0.53, 1.0, 1.56])
def test_start_and_frames(ramp, start):
    first = int(start * 25 + 1e-6)
    assert levels(read_video(ramp, start=start)) == [5 * i for i in range(first, 40)]
    assert levels(read_video(ramp, start=start, frames=1)) == [5 * first]


@pytest.mark.parametrize("wrong", [{"start": 1.6}, {"start": -1.0}, {"frames": 41}, {"frames": 0}, {"size_hw": (0, 8)}])
def test_what_is_not_there_is_refused(ramp, wrong):
    with pytest.raises(InputError, match="got"):
        open_video(ramp, **wrong)


def test_seeking_gives_the_frames_that_decoding_gives(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rgb_frame(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(60)]
    path = write_frames(
        tmp_path / "v.mp4",
        [frame.reformat(format="yuv420p") for frame in frames],
        codec="libx264",
        options={"g": "20", "bf": "3"},
    )
    whole = read_video(path).frames
    assert len(whole) == 60
    for start in (0.6, 0.84, 1.6, 2.36):
        np.testing.assert_array_equal(read_video(path, start=start).frames, whole[round(start * 25) :])


@settings(max_examples=15, deadline=None)
@given(gaps=st.lists(st.integers(10, 400), min_size=3, max_size=30), seed=st.integers(0, 99))
def test_variable_rate_shows_the_frame_of_the_moment(tmp_path_factory, gaps, seed):
    pts = np.cumsum([0, *gaps]).tolist()
    shown = np.random.default_rng(seed).permutation(250)[: len(pts)].tolist()
    folder = tmp_path_factory.mktemp("vfr")
    path = write_frames(folder / "v.mkv", grey_frames(shown), pts=pts, time_base=Fraction(1, 1000))
    source = open_video(path)
    got = levels(read_video(path))
    assert len(got) == source.num_frames
    if source._timeline.constant:  # gaps that happen to be nearly even: every frame once
        assert got == shown
        return
    for i, level in enumerate(got):
        now = i / float(source.fps) * 1000
        # timestamps are whole milliseconds and a frame may come up to 5 % of a period early
        slack = max(1.0, 0.05 * float(np.median(np.diff(pts)))) + 1e-6
        allowed = {shown[np.searchsorted(pts, t, side="right") - 1] for t in (now, now + slack)}
        assert level in allowed, (i, now, level)


def test_jittered_stamps_are_a_constant_rate(tmp_path):
    pts = [round(i * 1000 / 30) for i in range(30)]
    path = write_frames(tmp_path / "v.mkv", grey_frames(list(range(30))), rate=30, pts=pts, time_base=Fraction(1, 1000))
    assert levels(read_video(path)) == list(range(30))
    assert open_video(path).fps == 30


def test_frames_stored_out_of_order_come_in_order(tmp_path):
    """FFV1 has no reordering of its own, so the order of the file is the order of decoding."""
    frames = grey_frames([10 * i for i in range(12)])
    order = [3, 0, 2, 1, 7, 4, 6, 5, 11, 8, 10, 9]
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 24, 16, "bgr0"
        packets = []
        for i in order:
            frames[i].pts = None
            packets += stream.encode(frames[i])
        packets += stream.encode(None)
        for dts, (i, packet) in enumerate(zip(order, packets, strict=True)):
            packet.pts, packet.dts, packet.time_base = 40 * i + 400, 40 * dts, Fraction(1, 1000)
            container.mux(packet)
    assert levels(read_video(path)) == [10 * i for i in range(12)]


def test_a_stream_without_duration_is_counted(tmp_path):
    path = write_frames(tmp_path / "v.mkv", grey_frames(list(range(20))), container_options={"live": "1"})
    with av.open(str(path)) as container:
        assert container.duration is None or container.streams.video[0].frames == 0
    assert open_video(path).num_frames == 20
    assert levels(read_video(path)) == list(range(20))


def test_reading_holds_one_chunk_whatever_the_length(tmp_path):
    """Peak of NumPy's memory while streaming, against a clip six times as long."""
    import tracemalloc

    peaks = []
    for name, length in (("short.mkv", 64), ("long.mkv", 384)):
        source = open_video(write_frames(tmp_path / name, grey_frames([i % 256 for i in range(length)], (96, 96))))
        tracemalloc.start()
        assert sum(len(chunk) for chunk in source.chunks(16)) == length
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 4 * 16 * 96 * 96 * 3


# Columns of the display matrix of ISO/IEC 14496-12 section 8.3.2 for a clockwise quarter turn, a half turn, ...
TURNS = {
    0: (1, 0, 0, 1),
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
}


@pytest.mark.parametrize("turn", list(TURNS))
def test_rotation_metadata_is_applied(tmp_path, turn):
    """A player turns the stored picture clockwise by the angle of the track header's matrix."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    frame = rgb_frame(picture).reformat(format="yuv444p")
    path = write_frames(tmp_path / "v.mp4", [frame] * 2, codec="libx264", options={"crf": "1"})
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16  # version and flags, times and ids, layer to volume: then the matrix
    a, b, c, d = (value * 65536 for value in TURNS[turn])
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    expected = picture[:, ::-1] if turn == "mirrored" else np.rot90(picture, -int(turn) // 90)
    got = read_video(path).frames[0]
    assert got.shape == expected.shape and open_video(path).size_hw == expected.shape[:2]
    assert np.abs(got.astype(int) - expected).mean() < 4


def test_orientations_form_a_group():
    picture = np.arange(6).reshape(2, 3)
    quarter = np.array([[0, -1], [1, 0]])  # (x, y) shown = (-y, x) stored: clockwise
    np.testing.assert_array_equal(oriented(picture, quarter), np.rot90(picture, -1))
    np.testing.assert_array_equal(oriented(oriented(picture, quarter), quarter), oriented(picture, quarter @ quarter))


@pytest.mark.parametrize("to_hw", [(8, 12), (32, 48), (16, 16), (10, 24), (7, 9)])
def test_size_resizes_and_crops_the_middle(tmp_path, to_hw):
    y, x = np.mgrid[:16, :24]
    picture = np.stack([x * 10, y * 15, np.full_like(x, 77)], axis=-1).astype(np.uint8)
    path = write_frames(tmp_path / "v.mkv", [rgb_frame(picture)])
    got = read_video(path, size_hw=to_hw).frames[0].astype(float)
    assert got.shape == (*to_hw, 3)
    top, left, h, w = crop_for_aspect((16, 24), to_hw)
    # A linear ramp stays one: the value at each output centre is the ramp's value at the same place of the crop.
    cols = left + (np.arange(to_hw[1]) + 0.5) * w / to_hw[1] - 0.5
    rows = top + (np.arange(to_hw[0]) + 0.5) * h / to_hw[0] - 0.5
    inner = (slice(1, -1), slice(1, -1))
    scale = max(w / to_hw[1], h / to_hw[0], 1)
    assert np.abs(got[..., 0] - cols * 10)[inner].max() <= 2 + 2 * scale
    assert np.abs(got[..., 1] - rows[:, None] * 15)[inner].max() <= 2 + 2 * scale
    assert np.abs(got[..., 2] - 77).max() <= 1


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 4000))
def test_a_crop_is_inside_and_as_large_as_possible(h, w, out_h, out_w):
    top, left, crop_h, crop_w = crop_for_aspect((h, w), (out_h, out_w))
    assert 0 <= top and 0 <= left and top + crop_h <= h and left + crop_w <= w
    assert crop_h >= h - 1 or crop_w >= w - 1


@settings(max_examples=12, deadline=None)
@given(h=st.integers(1, 40), w=st.integers(1, 40), n=st.integers(1, 5), seed=st.integers(0, 99))
def test_lossless_is_lossless_at_every_size(tmp_path_factory, h, w, n, seed):
    folder = tmp_path_factory.mktemp("ffv1")
    rng = np.random.default_rng(seed)
    color, mask = rng.integers(0, 256, (n, h, w, 3), dtype=np.uint8), rng.random((n, h, w)) < 0.5
    for name, frames in (("color.mkv", color), ("mask.mkv", mask)):
        with VideoWriter(folder / name, Fraction(30000, 1001), lossless=True) as writer:
            for frame in frames:
                writer.write(frame[None])
    assert read_video(folder / "color.mkv").fps == Fraction(30000, 1001)
    np.testing.assert_array_equal(read_video(folder / "color.mkv").frames, color)
    np.testing.assert_array_equal(read_video(folder / "mask.mkv").frames, np.repeat(mask[..., None] * 255, 3, axis=-1))


def test_the_same_frames_give_the_same_bytes(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    for name, lossless in (("a.mkv", True), ("b.mkv", True), ("a.mp4", False), ("b.mp4", False)):
        with VideoWriter(tmp_path / name, 25, lossless=lossless) as writer:
            writer.write(frames)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_h264_repeats_the_last_row_and_column_of_odd_sizes(tmp_path):
    picture = np.full((3, 33, 47, 3), 90, np.uint8)
    picture[:, -1], picture[:, :, -1] = 200, 200
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(picture)
    assert writer.padded_hw == (34, 48)
    got = read_video(tmp_path / "v.mp4").frames[1].astype(int)
    assert got.shape == (34, 48, 3)
    assert np.abs(got[:-4, :-4] - 90).max() < 12 and np.abs(got[-2:, 4:-4] - 200).mean() < 12


def test_an_error_while_writing_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
        raise KeyError
    with pytest.raises(InputError, match="shape"), VideoWriter(tmp_path / "v.mkv", 25, lossless=True) as writer:
        writer.write(np.zeros((2, 16, 16, 3), np.uint8))
        writer.write(np.zeros((2, 16, 18, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def textured(seed: int, frames: int, step: float = 1.0) -> list[np.ndarray]:
    """A textured picture that slides by `step` pixels a frame."""
    import cv2

    rng = np.random.default_rng(seed)
    big = cv2.GaussianBlur(rng.integers(0, 256, (240, 480, 3), dtype=np.uint8), (0, 0), 4).astype(np.float32)
    big = np.clip((big - big.mean()) * 5 + rng.integers(60, 200, 3), 0, 255).astype(np.uint8)
    return [big[40:180, 20 + int(i * step) : 260 + int(i * step)] for i in range(frames)]


def test_cuts_are_found_and_motion_and_flashes_are_not():
    shots = [*textured(0, 12), *textured(1, 9, 4.0), *textured(2, 15, 0.0)]
    assert find_cuts(shots) == [12, 21]
    assert find_cuts(textured(3, 20, 6.0)) == []
    flashed = textured(4, 16)
    flashed[7] = np.full_like(flashed[7], 255)
    assert find_cuts(flashed) == []
    assert find_cuts([]) == [] and find_cuts(shots[:1]) == []
    assert find_cuts([*shots[:1], *shots[-1:]]) == [1]


@pytest.mark.parametrize(("suffix", "codec", "rate"), [(".mp4", "aac", 48000), (".mkv", "pcm_s16le", 22050)])
def test_audio_is_carried_in_time(tmp_path, suffix, codec, rate):
    """A rising tone tells the time: its frequency in the output is that of the source at the same moment."""
    source, start, moment = tmp_path / f"source{suffix}", 1.52, 0.7
    t = np.arange(4 * rate) / rate
    tone = (0.5 * np.sin(2 * np.pi * (200 * t + 300 * t * t))).astype(np.float32)
    with av.open(str(source), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream(codec, rate=rate, layout="mono")
        for level in range(100):
            container.mux(video.encode(grey_frames([level], (64, 64))[0].reformat(format="yuv420p")))
        resampler = av.AudioResampler(audio.codec_context.format, "mono", rate, audio.codec_context.frame_size or 1024)
        samples = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        samples.sample_rate, samples.pts = rate, 0
        for piece in [*resampler.resample(samples), *resampler.resample(None)]:
            container.mux(audio.encode(piece))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    clip = open_video(source, start=start, frames=50)
    assert clip.has_audio
    with VideoWriter(tmp_path / "out.mp4", clip.fps, audio_from=source, audio_start_s=clip.start_s) as writer:
        for chunk in clip.chunks():
            writer.write(chunk.frames)
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name == "aac"
        pieces = list(container.decode(track))
        out_rate, first = track.rate, float(pieces[0].pts * pieces[0].time_base)
        got = np.concatenate([piece.to_ndarray().mean(axis=0) for piece in pieces])
        assert abs(len(got) / out_rate + first - 2.0) < 0.07
    middle, around = round((moment - first) * out_rate), np.arange(-1024, 1024)
    lags = np.arange(-0.06, 0.06, 0.001)
    at = around / out_rate + moment + start + lags[:, None]
    match = np.abs(np.exp(2j * np.pi * (200 * at + 300 * at * at)) @ got[middle + around])
    assert abs(lags[match.argmax()]) < 0.0025


def test_a_source_without_audio_gives_none(ramp, tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25, audio_from=ramp) as writer:
        writer.write(np.zeros((3, 16, 16, 3), np.uint8))
    assert not open_video(tmp_path / "v.mp4").has_audio and not writer.notes


def test_every_version_of_pyav_opens_picture_and_sound(tmp_path, monkeypatch):
    """PyAV 19 has no `metadata_errors` any more."""
    path = write_frames(tmp_path / "v.mkv", grey_frames([7, 8, 9]))
    real = av.open

    def open_of_19(
        file,
        mode=None,
        format=None,
        options=None,
        container_options=None,
        buffer_size=32768,
        timeout=None,
        io_open=None,
        hwaccel=None,
    ):
        return real(file, mode, options=options)

    with monkeypatch.context() as patched:
        patched.setattr(av, "open", open_of_19)
        patched.setattr(av, "__version__", "19.0.0")
        assert levels(read_video(path)) == [7, 8, 9]
        with VideoWriter(tmp_path / "out.mp4", Fraction(25), audio_from=path) as writer:
            writer.write(read_video(path).frames)
    assert len(read_video(tmp_path / "out.mp4")) == 3


def test_tags_that_are_not_utf8_do_not_matter(tmp_path):
    path = write_frames(tmp_path / "v.mkv", grey_frames([7, 8]))
    tagged = tmp_path / "tagged.mkv"
    with av.open(str(path)) as source, av.open(str(tagged), "w") as container:
        container.metadata["title"] = "Grune Wiese"
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    data = tagged.read_bytes()
    assert b"Grune Wiese" in data
    tagged.write_bytes(data.replace(b"Grune Wiese", "Gr\u00fcne Wiese".encode("latin-1")))
    assert levels(read_video(tagged)) == [7, 8]
