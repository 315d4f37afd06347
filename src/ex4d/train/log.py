"""What a run writes down while it trains: log.jsonl always, TensorBoard where it is installed."""

from __future__ import annotations

import io
import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ex4d.system.atomic import ensure_dir, written_whole

if TYPE_CHECKING:
    import numpy as np


class RunLog:
    """Appends one JSON object a line to OUT/log.jsonl; TensorBoard events go to OUT/tensorboard."""

    def __init__(self, out: Path, *, tensorboard: bool = True, enabled: bool = True) -> None:
        self.out, self.enabled, self.path = out, enabled, out / "log.jsonl"
        self._lines: list[str] = []
        self._board: Any = None
        if enabled:
            ensure_dir(out)
            if tensorboard:
                self._board = _summary_writer(out / "tensorboard")

    def resume(self, step: int) -> None:
        """Drop what a killed run logged after its last checkpoint, so that no step stands twice."""
        if not self.enabled:
            return
        if self.path.exists():
            kept = [line for line in self.path.read_text(encoding="utf-8").splitlines() if _step(line) <= step]
            with written_whole(self.path) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.event("resumed", step=step)

    def event(self, name: str, **values: Any) -> None:
        """Something that happened once."""
        self._write({"event": name, **values})

    def scalars(self, step: int, values: dict[str, float], seconds: float | None = None, steps: int = 0) -> None:
        """Numbers of a step; `seconds` since the start of the slice."""
        rounded = {k: float(f"{v:.6g}") if math.isfinite(v) else None for k, v in values.items()}
        record: dict[str, Any] = {"step": step, **rounded}
        if seconds is not None:
            record["seconds"] = round(seconds, 2)
        self._write(record)
        if self._board is not None:
            for name, value in values.items():
                self._board.add_scalar(name, value, step)

    def videos(self, step: int, videos: dict[str, np.ndarray]) -> None:
        """Sample videos, uint8 [T, H, W, 3]: OUT/samples/STEP_NAME.gif, and TensorBoard's image tab, where they move."""
        if not self.enabled or not videos:
            return
        folder = ensure_dir(self.out / "samples")
        for name, frames in videos.items():
            data = _gif(frames)
            with written_whole(folder / f"{step:08d}_{name}.gif") as temporary:
                temporary.write_bytes(data)
            if self._board is not None:
                from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

                image = Summary.Image(
                    height=frames.shape[1], width=frames.shape[2], colorspace=3, encoded_image_string=data
                )
                writer = self._board._get_file_writer()
                writer.add_summary(Summary(value=[Summary.Value(tag=f"sample/{name}", image=image)]), step)

    def flush(self) -> None:
        """Put everything on disk."""
        if self.enabled and self._lines:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(self._lines)
            self._lines = []
        if self._board is not None:
            self._board.flush()

    def _write(self, record: dict[str, Any]) -> None:
        if self.enabled:
            self._lines.append(json.dumps({**record, "time": round(time.time(), 1)}) + "\n")
            self.flush()


def read_log(out: Path) -> list[dict[str, Any]]:
    """Every record of a run's log.jsonl."""
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines() if line]


def _step(line: str) -> int:
    try:
        return int(json.loads(line).get("step", 0))
    except ValueError:  # the last line of a killed run may be cut
        return 1 << 62


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


def _gif(frames: np.ndarray, fps: float = 12) -> bytes:
    from PIL import Image

    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=int(1000 / fps), loop=0)
    return buffer.getvalue()
