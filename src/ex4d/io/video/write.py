"""Video out: H.264 for people, FFV1 for the next stage."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.errors import InputError
from ex4d.io.video.audio import AudioTrack
from ex4d.system.atomic import written_whole

H264_OPTIONS = {"crf": "15", "preset": "fast"}
#: Golomb-Rice coding is a third faster than range coding, for files of the same size; every frame stands alone.
FFV1_OPTIONS = {"level": "3", "coder": "0", "context": "0", "g": "1", "slicecrc": "1"}
BT709, LIMITED, FULL = 1, 1, 2


class VideoWriter:
    """Writes frames as they come; the file appears under its name only when the `with` block ends well.

    H.264 (default): 4:2:0, limited range BT.709, tagged, index first. 4:2:0 has no odd sizes: the last row or column is
    repeated once (`padded_hw` says the stored size). Lossless: FFV1 in Matroska, RGB or grey, bit exact at any size.

    Args:
        path: .mp4 (or .mov, .mkv); .mkv when lossless.
        fps: Frames per second.
        lossless: FFV1 instead of H.264.
        audio_from: A file whose audio, if it has any, is carried over for as long as the video lasts.
        audio_start_s: Seconds between that file's first video frame and the first frame written here.

    Attributes:
        num_frames: Frames written.
        padded_hw: Stored (height, width).
        notes: What a user may want to know once the block has ended.
    """

    def __init__(
        self,
        path: Path | str,
        fps: Fraction,
        *,
        lossless: bool = False,
        audio_from: Path | None = None,
        audio_start_s: float = 0.0,
    ) -> None:
        self.path, self.fps, self.lossless = Path(path), Fraction(fps), lossless
        self.audio_from, self.audio_start_s = audio_from, audio_start_s
        self.num_frames = 0
        self.padded_hw: tuple[int, int] | None = None
        self.notes: list[str] = []
        self._stack = ExitStack()
        self._audio: AudioTrack | None = None
        self._container: Any = None
        self._stream: Any = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> VideoWriter:
        import av

        temporary = self._stack.enter_context(written_whole(self.path))
        try:
            options = {"fflags": "+bitexact"}  # no dates and random identifiers: the same frames give the same bytes
            if self.path.suffix != ".mkv":
                options["movflags"] = "+faststart"
            self._container = av.open(str(temporary), "w", options=options)
        except BaseException as error:
            if not self._stack.__exit__(type(error), error, error.__traceback__):
                raise
        return self

    def write(self, frames: np.ndarray) -> None:
        """Append frames: uint8 RGB [T, H, W, 3] or [H, W, 3]; lossless also takes masks, bool or uint8 [T, H, W]."""
        if frames.ndim == 3 and frames.shape[-1] == 3 and frames.dtype == np.uint8:
            frames = frames[None]
        if frames.dtype == bool:
            frames = frames.astype(np.uint8) * np.uint8(255)
        if self._stream is None:
            self._start(frames)
        if frames.shape[1:] != self._shape:
            raise InputError(f"got frames of shape {frames.shape[1:]}", f"{self._shape}, as the first ones")
        for frame in frames:
            self._encode(frame)

    def _start(self, frames: np.ndarray) -> None:
        self._shape = frames.shape[1:]
        h, w = self._shape[:2]
        stream = self._container.add_stream("ffv1" if self.lossless else "libx264", rate=self.fps)
        context = stream.codec_context
        context.time_base = 1 / self.fps
        if self.lossless:
            self.padded_hw = (h, w)
            stream.pix_fmt = "gray" if len(self._shape) == 2 else "bgr0"
            context.color_range = FULL
            # Version 3 cuts pictures into slices, which a width of 1 does not allow.
            stream.options = FFV1_OPTIONS if min(h, w) > 1 else {**FFV1_OPTIONS, "level": "1", "slicecrc": "0"}
        else:
            self.padded_hw = (h + h % 2, w + w % 2)
            stream.pix_fmt, stream.options = "yuv420p", H264_OPTIONS
            context.color_range = LIMITED
            context.color_primaries = context.color_trc = context.colorspace = BT709
        stream.height, stream.width = self.padded_hw
        self._stream = stream
        if self.audio_from is not None:
            self._audio = AudioTrack(self._container, self.audio_from, self.audio_start_s)

    def _encode(self, rgb: np.ndarray) -> None:
        import av
        from av.video.reformatter import ColorRange, Colorspace, Interpolation

        assert self.padded_hw is not None
        h, w = rgb.shape[:2]
        if (h, w) != self.padded_hw:
            rgb = np.pad(rgb, ((0, self.padded_hw[0] - h), (0, self.padded_hw[1] - w), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="gray" if rgb.ndim == 2 else "rgb24")
        if not self.lossless:
            flags = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
            frame = frame.reformat(
                format="yuv420p",
                interpolation=flags | Interpolation.BITEXACT,
                src_colorspace=Colorspace.ITU709,
                dst_colorspace=Colorspace.ITU709,
                src_color_range=ColorRange.JPEG,
                dst_color_range=ColorRange.MPEG,
            )
        elif rgb.ndim == 3:
            frame = frame.reformat(format="bgr0")
        frame.pts, frame.time_base = self.num_frames, 1 / self.fps
        self._container.mux(self._stream.encode(frame))
        self.num_frames += 1
        if self._audio is not None:
            self._audio.advance(float(self.num_frames / self.fps))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
                if self._audio is not None:
                    self._audio.finish(float(self.num_frames / self.fps))
                    self.notes += self._audio.notes
            self._container.close()
        except BaseException as failure:
            if not self._stack.__exit__(type(failure), failure, failure.__traceback__):
                raise
            return
        self._stack.__exit__(kind, error, trace)
