"""Carry a source's sound into a new file: the matching span, copied where the container takes it, else encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ex4d.io.video.container import open_container

#: Codecs that every MP4 player knows; packets of these are copied.
COPIED = {"aac", "mp3", "ac3", "eac3", "alac"}
AAC_BITS_PER_S = 192_000
AAC_FRAME = 1024


class AudioTrack:
    """The audio of `source` from `start_s` after its first video frame on, muxed beside video that is being written.

    Attributes:
        notes: What went wrong while reading the source, if anything; the video goes on without sound then.
    """

    def __init__(self, output: Any, source: Path, start_s: float) -> None:
        self.notes: list[str] = []
        self._output, self._source = output, source
        self._container: Any = open_container(source)
        self._stream: Any = self._container.streams.best("audio")
        self._out: Any = None
        self._pending: tuple[float, Any] | None = None
        if self._stream is None:
            self._parts: Iterator[tuple[float, Any]] = iter(())
            return
        video = self._container.streams.best("video")
        zero_s = float((video.start_time or 0) * video.time_base) if video is not None else 0.0
        self._zero_s = zero_s + start_s
        codec = self._stream.codec_context
        name = codec.codec.canonical_name  # "mp3", where the decoder's own name is "mp3float"
        if name in COPIED and (name != "aac" or codec.extradata):
            self._out = output.add_stream_from_template(self._stream)
            self._parts = self._copied()
        else:
            rate = codec.sample_rate if codec.sample_rate in (32000, 44100, 48000) else 48000
            self._layout = "mono" if codec.layout.nb_channels == 1 else "stereo"
            self._out = output.add_stream("aac", rate=rate, layout=self._layout, bit_rate=AAC_BITS_PER_S)
            self._parts = self._encoded(rate)

    def advance(self, until_s: float) -> None:
        """Mux what begins before `until_s` of the new file, so that sound and picture lie side by side."""
        from av.error import FFmpegError

        while True:
            try:
                part = self._pending or next(self._parts, None)
            except (FFmpegError, OSError) as error:
                self.notes.append(f"the audio of {self._source} is damaged ({error}): the rest is silent")
                self._parts, part = iter(()), None
            self._pending = part
            if part is None or part[0] >= until_s:
                return
            self._output.mux(part[1])
            self._pending = None

    def finish(self, duration_s: float) -> None:
        """Mux the rest up to the end of the video."""
        self.advance(duration_s)
        if self._out is not None and self._out.codec_context is not None and self._out.codec_context.is_encoder:
            self._output.mux(self._out.encode(None))
        self.close()

    def close(self) -> None:
        """Let go of the source."""
        self._container.close()

    def _seek(self) -> None:
        if self._zero_s > 1:
            self._container.seek(int((self._zero_s - 1) / self._stream.time_base), stream=self._stream, backward=True)

    def _copied(self) -> Iterator[tuple[float, Any]]:
        time_base = self._stream.time_base
        zero = round(self._zero_s / time_base)
        self._seek()
        for packet in self._container.demux(self._stream):
            if packet.pts is None or packet.pts < zero:
                continue
            packet.pts -= zero
            packet.dts = packet.pts
            packet.stream = self._out
            yield float(packet.pts * time_base), packet

    def _encoded(self, rate: int) -> Iterator[tuple[float, list[Any]]]:
        import av

        resampler = av.AudioResampler(format="fltp", layout=self._layout, rate=rate)
        self._seek()
        written, skip, waiting = None, 0, []
        for frame in chain(self._container.decode(self._stream), [None]):
            if frame is not None and written is None:
                if frame.pts is None:
                    continue
                begin = round((float(frame.pts * frame.time_base) - self._zero_s) * rate)
                if begin + frame.samples * rate // frame.sample_rate <= 0:
                    continue
                written, skip = max(begin, 0), max(-begin, 0)
            if frame is not None:
                frame.pts = None  # the span is continuous from here on: samples are counted
            waiting += [piece.to_ndarray() for piece in resampler.resample(frame)]
            samples = np.concatenate(waiting, axis=1)[:, skip:] if waiting else np.empty((1, 0), np.float32)
            if waiting:
                skip, waiting = 0, [samples]
            while samples.shape[1] >= AAC_FRAME or (frame is None and samples.shape[1]):
                assert written is not None
                block, samples = samples[:, :AAC_FRAME], samples[:, AAC_FRAME:]
                waiting = [samples]
                yield written / rate, self._out.encode(self._block(block, written, rate))
                written += block.shape[1]

    def _block(self, samples: np.ndarray, pts: int, rate: int) -> Any:
        import av

        block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self._layout)
        block.pts, block.time_base, block.sample_rate = pts, Fraction(1, rate), rate
        return block
