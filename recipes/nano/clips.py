"""Training videos as uint8 tensors on the training device: the permissive clips and rendered scenes."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

#: Clips whose file name starts so are held out of all training and used for validation (chosen once, by name order).
HELD_OUT = ("0ee8f610b2", "c65f20d388")

#: Mean absolute change of a 32x32 grey thumbnail, in levels, above which two frames belong to different shots.
CUT_LEVELS = 28.0


@dataclass(frozen=True)
class Shot:
    """One uncut piece of video, uint8 [time, 3, height, width]."""

    name: str
    frames: Tensor


def read_clips(folder: Path, device: str, held_out: bool = False, every: int = 1) -> list[Shot]:
    """Decode every clip with OpenCV, cut it into shots, put it on `device`."""
    import cv2

    shots: list[Shot] = []
    for path in sorted(folder.glob("*.mp4")):
        if path.stem.startswith(HELD_OUT) != held_out:
            continue
        capture = cv2.VideoCapture(str(path))
        frames, thumbs = [], []
        while True:
            ok, frame = capture.read()
            if not ok:
                break
            frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))
            thumbs.append(cv2.resize(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), (32, 32), interpolation=cv2.INTER_AREA))
        if not frames:
            continue
        change = np.abs(np.diff(np.stack(thumbs).astype(np.float32), axis=0)).mean(axis=(1, 2))
        cuts = [0, *(np.nonzero(change > CUT_LEVELS)[0] + 1), len(frames)]
        for k, (start, stop) in enumerate(zip(cuts, cuts[1:], strict=False)):
            if stop - start >= 17:
                piece = np.ascontiguousarray(np.stack(frames[start:stop:every]).transpose(0, 3, 1, 2))
                shots.append(Shot(f"{path.stem}-{k}", torch.from_numpy(piece).to(device)))
    return shots


class VideoPool:
    """Random crops of random shots; rendered scenes join while training runs.

    Args:
        clips: Folder of mp4 files.
        scenes: Folder of .npz files with `color` uint8 [time, height, width, 3], read when `refresh` finds new ones.
        scene_share: Probability that a sample comes from a scene once there are some.
    """

    def __init__(self, clips: Path, scenes: Path | None, device: str, scene_share: float = 0.5) -> None:
        self.device, self.scene_folder, self.scene_share = device, scenes, scene_share
        self.clips = read_clips(clips, device)
        self.clip_weight = torch.tensor([float(min(len(s.frames), 300)) for s in self.clips])
        self.scenes: list[Shot] = []
        self._read: set[str] = set()
        self.refresh()

    def refresh(self, limit: int = 2000) -> None:
        """Load scenes that appeared since the last call."""
        if self.scene_folder is None:
            return
        for path in sorted(self.scene_folder.glob("[0-9]*.npz")):
            if path.name in self._read or len(self.scenes) >= limit:
                continue
            try:
                with np.load(path) as data:
                    frames = torch.from_numpy(np.ascontiguousarray(data["color"].transpose(0, 3, 1, 2)))
            except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                continue  # still being written
            self._read.add(path.name)
            self.scenes.append(Shot(path.stem, frames.to(self.device)))

    def batch(self, size: int, frames: int, px: int, generator: torch.Generator) -> Tensor:
        """[size, 3, frames, px, px] in [-1, 1]; flips, time reversal, strides 1-3 and mild colour changes."""
        out = torch.empty(size, 3, frames, px, px, device=self.device)
        for b in range(size):
            r = torch.rand(8, generator=generator)
            if self.scenes and r[0] < self.scene_share:
                shot = self.scenes[int(torch.randint(len(self.scenes), (1,), generator=generator))]
            else:
                shot = self.clips[int(torch.multinomial(self.clip_weight, 1, generator=generator))]
            n, _, h, w = shot.frames.shape
            stride = min(1 + int(r[1] * 3), max((n - 1) // (frames - 1), 1)) if frames > 1 else 1
            span = (frames - 1) * stride + 1
            start = int(r[2] * (n - span + 1)) if n >= span else 0
            index = torch.arange(frames).mul_(stride).add_(start).clamp_(max=n - 1)
            if r[3] < 0.3:
                index = index.flip(0)
            y, x = int(r[4] * (h - px + 1)), int(r[5] * (w - px + 1))
            crop = shot.frames[index.to(self.device), :, y : y + px, x : x + px].float()
            if r[6] < 0.5:
                crop = crop.flip(-1)
            gain, shift = 0.8 + 0.4 * r[7], 30 * (torch.rand(1, generator=generator) - 0.5)
            out[b] = ((crop - 127.5) * gain.item() + 127.5 + shift.item()).clamp(0, 255).transpose(0, 1)
        return out.div_(127.5).sub_(1)
