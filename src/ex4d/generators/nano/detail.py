"""Fine texture for what a model left soft: the high band of what was seen, copied in patches that ride on the picture's motion.

A one-step denoiser says where a wall ends and which colour it has, not its bricks. Those are to be seen elsewhere in the clip. So
a hole is covered with overlapping patches, as in image quilting (Efros and Freeman 2001), but only their high band is copied;
what they must match is the low band. Each patch is chosen once and then carried by the optical flow, so that texture moves
with the scene and neither boils nor sticks to the screen.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from ex4d.generators.nano.detail_bank import (
    COLORS,
    HALF_PX,
    HIGH_SIGMA_PX,
    LOW_SIGMA_PX,
    Bank,
    Seen,
    blur,
    features,
    pixels,
)

#: Patches lie so far apart, pixels of the model's size; as shares of it: nearer ones are not laid, still nearer ones go, and
#: neighbours go on from each other's source.
STEP_PX, NEAR, TOO_NEAR, BESIDE = 12, 0.85, 0.45, 1.6
#: Detail loses strength as its root mean square goes beyond this many levels: one strong edge must not stand out, and twice
#: the contrast flickers twice as much for little more likeness.
SOFT_LEVELS = 15.0
#: Mismatch, levels a colour, at which a patch loses 40 % of its strength.
TRUST_LEVELS = 25.0
#: A patch is given up when the colours under it have changed (squared) this much more than it was off at first, or so many levels.
GIVE_UP, GIVE_UP_LEVELS = 3.0, 8.0
#: Frames in which a patch comes and goes.
FADE_FRAMES = 6
#: What is seen is stored each so many frames; so many of them are kept.
KEY_FRAMES, KEYS = 8, 7
#: Motion in holes follows that around them: what a generated pixel counts beside a seen one, and over which distance.
GENERATED_WEIGHT, MOTION_SIGMA_PX = 0.05, 8.0
#: Cover thinner than this is faint, not stretched.
LEAST_COVER = 0.03


@dataclass
class _Patches:
    """Patches in use; all arrays have the same length."""

    place: np.ndarray  # float64 [n, 2] rows, columns of the centre
    pixels: np.ndarray  # float32 [n, 2 HALF_PX + 2, same, 3], strength included
    source: np.ndarray  # float64 [n, 3] key frame, row, column
    feature: np.ndarray  # float32 [n, 16] what was under it when it was laid
    mismatch: np.ndarray  # float64 [n] squared, then
    age: np.ndarray  # float64 [n] frames
    leaving: np.ndarray  # int [n] frames it is still to be seen + 1; 0: stays

    @classmethod
    def none(cls) -> _Patches:
        side = 2 * HALF_PX + 2
        return cls(
            np.zeros((0, 2)),
            np.zeros((0, side, side, 3), np.float32),
            np.zeros((0, 3)),
            np.zeros((0, COLORS + 1), np.float32),
            np.zeros(0),
            np.zeros(0),
            np.zeros(0, int),
        )

    def keep(self, chosen: np.ndarray) -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name)[chosen])

    def add(self, more: _Patches) -> None:
        for field in fields(self):
            setattr(self, field.name, np.concatenate([getattr(self, field.name), getattr(more, field.name)]))


class Detail:
    """The detail of a clip's holes, frame after frame. Deterministic; memory does not grow with the clip's length.

    Args:
        finest_px: Scale (sigma) of the finest detail that is copied; what is finer flickers most where the picture moves, and
            is seen least.
    """

    def __init__(self, finest_px: float = 0.0) -> None:
        self._finest_px = finest_px
        self._keys: deque[Seen] = deque(maxlen=KEYS)
        self._bank = Bank(())
        self._patches = _Patches.none()
        self._last: tuple[np.ndarray, np.ndarray] | None = None
        self._count = 0

    def next(
        self,
        generated: Float32[np.ndarray, "h w 3"],
        seen: UInt8[np.ndarray, "h w 3"],
        known: Bool[np.ndarray, "h w"],
    ) -> Float32[np.ndarray, "h w 3"]:
        """What to add to the next frame.

        Args:
            generated: The frame as the model made it, 0..255; detail that it has already is not added again.
            seen: The picture; only its known pixels are read.
            known: True where `seen` was observed.

        Returns:
            Levels; 0 where known.
        """
        import cv2

        both = np.where(known[..., None], seen, np.clip(np.rint(generated), 0, 255).astype(np.uint8))
        if self._count % KEY_FRAMES == 0:
            self._keys.append(Seen.of(self._count, seen, known, self._finest_px))
            self._bank = Bank(self._keys)
        gray = cv2.cvtColor(both, cv2.COLOR_RGB2GRAY)
        near = cv2.dilate((~known).astype(np.uint8), np.ones((2 * HALF_PX + 1,) * 2, np.uint8)) > 0
        low = blur(both.astype(np.float32), LOW_SIGMA_PX)
        self._move(gray)
        self._retire(low, near)
        self._lay(low, near)
        self._last = gray, known
        self._count += 1
        return _lacking(_drawn(self._patches, known.shape), generated) * ~known[..., None]

    def _move(self, gray: np.ndarray) -> None:
        import cv2

        patches = self._patches
        patches.age += 1
        patches.leaving = np.where(patches.leaving > 1, patches.leaving - 1, patches.leaving)
        if self._last is None or not len(patches.place):
            return
        before, seen = self._last
        dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        flow: Any = dis.calc(before, gray, None)  # type: ignore[call-overload]
        weight = np.where(seen, 1, GENERATED_WEIGHT).astype(np.float32)[..., None]
        flow = blur(flow * weight, MOTION_SIGMA_PX) / blur(weight, MOTION_SIGMA_PX)
        y, x = pixels(patches.place, gray.shape)
        patches.place = patches.place + flow[y, x, ::-1]

    def _retire(self, low: np.ndarray, near: np.ndarray) -> None:
        """Drop patches that have faded or are needed no more; those that lie too close or no longer fit begin to fade."""
        patches, size = self._patches, np.array(near.shape)
        inside = ((patches.place > -HALF_PX) & (patches.place < size + HALF_PX)).all(axis=1)
        patches.keep(inside & near[pixels(patches.place, near.shape)] & (patches.leaving != 1))
        if not len(patches.place):
            return
        now = features(low, np.stack(pixels(patches.place, near.shape), axis=1))
        changed = ((now - patches.feature)[:, :COLORS] ** 2).sum(axis=1)
        unfit = changed > GIVE_UP * np.maximum(patches.mismatch, COLORS * GIVE_UP_LEVELS**2)
        apart = _apart(patches.place, patches.place)
        apart[np.triu_indices(len(apart))] = np.inf  # the older one stays
        apart[:, patches.leaving > 0] = np.inf
        close = apart.min(axis=1) < (TOO_NEAR * STEP_PX) ** 2
        patches.leaving[(unfit | close) & (patches.leaving == 0)] = FADE_FRAMES + 1

    def _lay(self, low: np.ndarray, near: np.ndarray) -> None:
        """New patches where none is near, each from where its neighbour goes on if that fits."""
        patches, bank, (h, w) = self._patches, self._bank, near.shape
        if not len(bank):
            return
        step = STEP_PX // 2 if len(patches.place) else STEP_PX
        y, x = np.meshgrid(np.arange(0, h + step, step), np.arange(0, w + step, step), indexing="ij")
        grid = np.stack([y.ravel(), x.ravel()], axis=1).astype(float)
        grid = grid[near[pixels(grid, near.shape)]]
        staying = patches.leaving == 0
        taken, sources = [*patches.place[staying]], [*patches.source[staying]]
        if taken:
            grid = grid[_apart(grid, np.array(taken)).min(axis=1) >= (NEAR * STEP_PX) ** 2]
        if not len(grid):
            return
        wanted = features(low, np.stack(pixels(grid, near.shape), axis=1))
        laid: list[tuple[int, int]] = []  # index into the grid, row of the bank
        for i, point in enumerate(grid):
            beside = _apart(point[None], np.array(taken))[0] if taken else np.zeros(0)
            if len(beside) and beside.min() < (NEAR * STEP_PX) ** 2:
                continue
            cost = bank.costs(wanted[i])
            row, limit = bank.usual(cost)
            source = bank.source[row]
            for j in np.nonzero(beside < (BESIDE * STEP_PX) ** 2)[0]:
                on = sources[j] + [0, *(point - taken[j])]
                there = bank.row_of(on)
                if there >= 0 and cost[there] <= limit:
                    limit, row, source = cost[there], there, on
            taken.append(point)
            sources.append(source)
            laid.append((i, row))
        chosen, rows = np.array(laid).T
        mismatch = ((bank.feature[rows] - wanted[chosen]) ** 2).sum(axis=1).astype(float)
        strength = np.exp(-mismatch / (2 * COLORS * TRUST_LEVELS**2)) / np.sqrt(1 + bank.energy[rows] / SOFT_LEVELS**2)
        cut = np.stack([bank.cut(source) for source in sources[-len(laid) :]])
        age = np.full(len(laid), 0.0 if self._count else float(FADE_FRAMES))
        patches.add(
            _Patches(
                grid[chosen],
                cut * strength[:, None, None, None].astype(np.float32),
                np.stack(sources[-len(laid) :]),
                wanted[chosen],
                mismatch,
                age,
                np.zeros(len(laid), int),
            )
        )


def _drawn(patches: _Patches, hw: tuple[int, ...]) -> np.ndarray:
    """All patches in their places; the nearest one counts most, so that their texture is not averaged away."""
    import cv2

    margin = side = 2 * HALF_PX
    total = np.zeros((hw[0] + 2 * margin, hw[1] + 2 * margin, 4), np.float32)
    leaving = np.where(patches.leaving > 0, (patches.leaving - 1) / FADE_FRAMES, 1)
    shown = (np.minimum(patches.age / FADE_FRAMES, 1) * leaving) ** 2
    weight = np.outer(*2 * [np.hanning(side + 2)[1:-1]]).astype(np.float32) ** 2
    ones = np.ones((side, side, 1), np.float32)
    for place, patch, share in zip(patches.place, patches.pixels, shown, strict=True):
        y, x = np.rint(place).astype(int)
        part = cv2.getRectSubPix(patch, (side, side), (HALF_PX + 0.5 + x - place[1], HALF_PX + 0.5 + y - place[0]))
        y, x = y + margin - HALF_PX, x + margin - HALF_PX
        total[y : y + side, x : x + side] += np.concatenate([part, ones], axis=2) * (weight * share)[..., None]
    total = total[margin:-margin, margin:-margin]
    return total[..., :3] / np.maximum(total[..., 3:], LEAST_COVER)


def _lacking(detail: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Detail, weaker where the generated picture has some of its own: together they have the energy of the detail."""
    own = blur(((generated - blur(generated, HIGH_SIGMA_PX)) ** 2).mean(axis=-1), 2 * HIGH_SIGMA_PX)
    energy = blur((detail**2).mean(axis=-1), 2 * HIGH_SIGMA_PX)
    return detail * np.sqrt(np.clip(1 - own / (energy + 1e-2), 0, 1))[..., None]


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances [len(a), len(b)]."""
    y, x = a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]
    return y * y + x * x
