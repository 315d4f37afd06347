"""Video in, frame by frame, through PyAV; `VideoWriter` (video out) is at home in `video_writer` and named here too.

Colours: `color` and `hdr`. Times: `timeline`. Cuts: `cuts`. Nothing here holds more than one chunk and the decoder's own
few frames, whatever the length of the clip.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import InputError
from ex4d.io.video.color import FrameConverter, orientation, oriented
from ex4d.io.video.container import open_container
from ex4d.io.video.timeline import Timeline, make_timeline
from ex4d.io.video.write import VideoWriter
from ex4d.types import MAX_CHUNK_FRAMES, VideoClip

__all__ = ["VideoSource", "VideoWriter", "crop_for_aspect", "open_video", "read_video"]

#: Share of the planned frames that may be missing at the end (damaged last packets); they repeat the last good one.
MISSING_TAIL = 0.02


@dataclass(frozen=True)
class VideoSource:
    """A video file, ready to be read from its start as often as needed.

    Attributes:
        path: The file.
        fps: Constant output rate: the source's own.
        size_hw: (height, width) of the frames given out, after rotation, square pixels and `size_hw` of `open_video`.
        source_hw: (height, width) before `size_hw` of `open_video` was applied.
        num_frames: Frames given out.
        start_s: Seconds skipped at the start.
        has_audio: Whether an audio stream can be carried over (`VideoWriter(audio_from=path, audio_start_s=start_s)`).
        notes: What was decided for this file and a user may want to know, one sentence each.
    """

    path: Path
    fps: Fraction
    size_hw: tuple[int, int]
    source_hw: tuple[int, int]
    num_frames: int
    start_s: float
    has_audio: bool
    notes: tuple[str, ...] = ()
    _timeline: Timeline = field(repr=False, default=None)  # type: ignore[assignment]
    _numbered: bool = field(repr=False, default=False)  # the file carries no timestamps: frames are counted
    # Read once: PyAV's side data refers to its frame and back, which keeps frames alive until the garbage collector runs.
    _turn: np.ndarray = field(repr=False, default_factory=lambda: np.eye(2, dtype=int))

    def __len__(self) -> int:
        return self.num_frames

    def chunks(self, max_frames: int = MAX_CHUNK_FRAMES) -> Iterator[VideoClip]:
        """The frames in order, at most `max_frames` a chunk; each call starts again. InputError where decoding fails."""
        frames = self.frames()
        for start in range(0, self.num_frames, max_frames):
            chunk = np.empty((min(max_frames, self.num_frames - start), *self.size_hw, 3), np.uint8)
            for i, frame in zip(range(len(chunk)), frames, strict=False):
                chunk[i] = frame
            yield VideoClip(chunk, self.fps)

    def frames(self) -> Iterator[np.ndarray]:
        """Every output frame, uint8 [H, W, 3]; a frame that is shown twice is the same array twice."""
        wanted = self._timeline.shown_pts
        done, current, picture = 0, None, None
        for pts, stored in self._decoded():
            while done < len(wanted) and current is not None and wanted[done] < pts:
                if picture is None:
                    picture = self._picture(current)
                yield picture
                done += 1
            if done == len(wanted):
                return
            current, picture = stored, None
        if current is None or len(wanted) - done - 1 > max(1, MISSING_TAIL * len(wanted)):
            raise _damaged(self.path, done)
        picture = self._picture(current) if picture is None else picture
        for _ in range(len(wanted) - done):
            yield picture

    def cuts(self) -> list[int]:
        """Indices of the frames that begin a new shot (never 0); reads the clip once, in little memory."""
        from ex4d.io.video.cuts import find_cuts

        return find_cuts(self.frames())

    def _picture(self, stored: tuple[Any, FrameConverter]) -> np.ndarray:
        frame, convert = stored
        picture = oriented(convert(frame), self._turn)
        return _resized(picture, self.source_hw, self.size_hw)

    def _decoded(self) -> Iterator[tuple[int, tuple[Any, FrameConverter]]]:
        """(pts, frame) in the order of presentation, from a little before the first one wanted."""
        first = int(self._timeline.shown_pts[0])
        convert = FrameConverter(self.path.name)
        seek = None if self._numbered or self._timeline.start_s < 0.5 else first
        for seek_pts in (seek, None):
            waiting: list[tuple[int, int, Any]] = []
            for count, frame in enumerate(_decode(self.path, seek_pts)):
                pts = count if self._numbered or frame.pts is None else frame.pts
                if count == 0 and seek_pts is not None and pts > first:
                    break  # the file's index is wrong: decode from the beginning
                heapq.heappush(waiting, (pts, count, frame))
                if len(waiting) > self._timeline.reorder:
                    pts, _, frame = heapq.heappop(waiting)
                    yield pts, (frame, convert)
            else:
                while waiting:
                    pts, _, frame = heapq.heappop(waiting)
                    yield pts, (frame, convert)
                return


def open_video(
    path: Path | str,
    *,
    start: float | None = None,
    frames: int | None = None,
    size_hw: tuple[int, int] | None = None,
) -> VideoSource:
    """Look at a video file; nothing but its first frame is decoded yet.

    Args:
        path: Any container and codec FFmpeg reads.
        start: Seconds to skip.
        frames: How many output frames; all of them by default.
        size_hw: Output (height, width); another aspect is cropped in the middle, never stretched. Default: the source's.

    Raises:
        InputError: not a file, not a video, damaged, no frames, `start` or `frames` beyond its end.
    """
    path = Path(path)
    _check_file(path)
    if size_hw is not None and (len(size_hw) != 2 or min(size_hw) < 1):
        raise InputError(f"got size {size_hw}", "a height and a width of at least 1", "--size 512 512")
    arrival_pts, time_base, rates, has_audio, sar = _scan(path)
    first = next(_decode(path, None), None)
    if first is None or not len(arrival_pts):
        raise InputError(f"{path} has no video frames", "a video with at least one frame", "another file")

    notes = []
    numbered = bool((arrival_pts == NO_PTS).any())
    if numbered:
        arrival_pts, time_base = np.arange(len(arrival_pts)), 1 / (rates[0] if rates else Fraction(25))
        notes.append("the file has no timestamps: its frames are spaced evenly")
    timeline = make_timeline(arrival_pts, time_base, rates, start_s=start, frames=frames, name=str(path))
    if not timeline.constant:
        notes.append(f"the frame rate varies: frames are shown at a constant {float(timeline.fps):.3f} per second")

    turn = orientation(first)
    source_hw = (first.height, max(round(first.width * sar), 1))
    if source_hw[1] != first.width:
        notes.append(f"the pixels are not square ({sar}): {first.width} columns are shown as {source_hw[1]}")
    if turn[0, 0] == 0:
        source_hw = source_hw[::-1]
    if any(component.is_alpha for component in first.format.components):
        notes.append("the video is transparent in places: it is shown on black")
    if first.color_trc in (16, 18):
        notes.append("the video is HDR: it is tone-mapped to SDR (BT.2390, white at 203 nits)")
    if first.interlaced_frame:
        notes.append("the video is interlaced: the two fields of a frame are shown together")
    size_hw = (int(size_hw[0]), int(size_hw[1])) if size_hw else source_hw
    top, left, height, width = crop_for_aspect(source_hw, size_hw)
    if (height, width) != source_hw:
        notes.append(f"another aspect was asked for: rows {top}+{height} and columns {left}+{width} are used")
    return VideoSource(
        path=path,
        fps=timeline.fps,
        size_hw=size_hw,
        source_hw=source_hw,
        num_frames=len(timeline),
        start_s=timeline.start_s,
        has_audio=has_audio,
        notes=tuple(notes),
        _timeline=timeline,
        _numbered=numbered,
        _turn=turn,
    )


def read_video(
    path: Path | str,
    *,
    start: float | None = None,
    frames: int | None = None,
    size_hw: tuple[int, int] | None = None,
) -> VideoClip:
    """The whole clip at once; for clips that fit in memory. Arguments and errors as `open_video`."""
    source = open_video(path, start=start, frames=frames, size_hw=size_hw)
    out = np.empty((source.num_frames, *source.size_hw, 3), np.uint8)
    for i, frame in enumerate(source.frames()):
        out[i] = frame
    return VideoClip(out, source.fps)


def crop_for_aspect(from_hw: tuple[int, int], to_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest middle part of a picture with the aspect of `to_hw`.

    A difference that a whole number of pixels cannot express (540x960 to 360x640) crops nothing.
    """
    (h, w), (out_h, out_w) = from_hw, to_hw
    crop_h, crop_w = min(h, round(w * out_h / out_w)), min(w, round(h * out_w / out_h))
    crop_h, crop_w = (h if h - crop_h <= 1 else crop_h), (w if w - crop_w <= 1 else crop_w)
    return (h - crop_h) // 2, (w - crop_w) // 2, crop_h, crop_w


def _resized(picture: np.ndarray, source_hw: tuple[int, int], size_hw: tuple[int, int]) -> np.ndarray:
    """Square the pixels, crop to the aspect, resize: area averages down, Lanczos up; contiguous."""
    import cv2

    for crop, target_hw in ((False, source_hw), (True, size_hw)):
        if picture.shape[:2] == target_hw:
            continue
        if crop:
            top, left, h, w = crop_for_aspect(picture.shape[:2], target_hw)
            picture = picture[top : top + h, left : left + w]
        smaller = target_hw[0] <= picture.shape[0] and target_hw[1] <= picture.shape[1]
        how = cv2.INTER_AREA if smaller else cv2.INTER_LANCZOS4
        picture = cv2.resize(np.ascontiguousarray(picture), target_hw[::-1], interpolation=how)
    return np.ascontiguousarray(picture)


NO_PTS = np.iinfo(np.int64).min


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise InputError(f"{path} is a folder", "a video file", f"ls {path}")
    if not path.exists():
        raise InputError(f"{path} does not exist", "a video file", "check the path")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty", "a video with at least one frame", "another file")


def _not_a_video(path: Path, why: object) -> InputError:
    return InputError(f"{path} cannot be read as a video ({why})", "a video file", f"ffmpeg -i {path} shows what it is")


def _damaged(path: Path, frames: int) -> InputError:
    return InputError(
        f"{path} is damaged: decoding stops after {frames} frames",
        "a file that decodes to its end",
        f"--frames {frames}" if frames else "another copy of the file",
    )


def _open(path: Path) -> tuple[Any, Any]:
    from av.error import FFmpegError
    from av.stream import Disposition

    try:
        container = open_container(path)
    except (FFmpegError, OSError) as error:
        raise _not_a_video(path, getattr(error, "strerror", None) or error) from error
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        container.close()
        raise _not_a_video(path, "no video stream")
    return container, streams[0]


def _scan(path: Path) -> tuple[np.ndarray, Fraction, tuple[Fraction, ...], bool, Fraction]:
    """Presentation times of every packet in the order of the file; nothing is decoded."""
    from av.error import FFmpegError

    container, stream = _open(path)
    with container:
        try:
            pts = [
                NO_PTS if packet.pts is None else packet.pts
                for packet in container.demux(stream)
                if packet.size and not packet.is_discard
            ]
        except (FFmpegError, OSError) as error:
            raise _not_a_video(path, getattr(error, "strerror", None) or error) from error
        rates = tuple(Fraction(r) for r in (stream.average_rate, stream.guessed_rate, stream.base_rate) if r)
        sar = Fraction(stream.sample_aspect_ratio or 1)
        has_audio = len(container.streams.audio) > 0
        sar = sar if Fraction(1, 8) < sar < 8 else Fraction(1)
        return np.array(pts, np.int64), Fraction(stream.time_base), rates, has_audio, sar


def _decode(path: Path, seek_pts: int | None) -> Iterator[Any]:
    """Decoded PyAV frames in the order the decoder gives them; InputError where the data is damaged."""
    from av.error import FFmpegError

    container, stream = _open(path)
    count = 0
    with container:
        try:
            decoder = _decoder(stream)
            if seek_pts is not None:
                container.seek(seek_pts, stream=stream, backward=True)
            for packet in container.demux(stream):
                for frame in decoder.decode(packet if packet.size else None):
                    yield frame
                    count += 1
        except (FFmpegError, OSError) as error:
            raise _damaged(path, count) from error


def _decoder(stream: Any) -> Any:
    """The stream's decoder; for VP8 and VP9 with alpha libvpx's, as FFmpeg's own drops the alpha plane."""
    import av

    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") == "1" and name in av.codecs_available:
        decoder = av.CodecContext.create(name, "r")
        decoder.extradata = stream.codec_context.extradata
        return decoder
    stream.thread_type = "AUTO"
    return stream.codec_context
