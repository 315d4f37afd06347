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

#: Patches reach so far from their centre, and lie so far apart; pixels of the model's size.
HALF_PX, STEP_PX = 12, 12
#: Scale of what is copied, and of the colours by which patches are compared.
HIGH_SIGMA_PX, LOW_SIGMA_PX = 4.0, 6.0
#: Colours are compared here and so far up, down, left and right.
AROUND_PX = 8
#: Levels that a difference in height counts, over the whole picture: floors are below, skies above.
HEIGHT_LEVELS = 128.0
#: A patch is as good as its expected squared error: colour mismatch, and this share of the detail's energy. Without it the stripes
#: of an object appear in a sky of the same mean colour.
ENERGY_SHARE = 0.3
#: Detail loses strength as its root mean square goes beyond this many levels: one strong edge must not stand out, and twice
#: the contrast flickers twice as much for little more likeness.
SOFT_LEVELS = 15.0
#: Mismatch, levels, at which a patch loses 40 % of its strength.
TRUST_LEVELS = 25.0
#: A neighbour's source goes on when it is at most this much worse than the best; among patches this close the usual energy wins.
GO_ON, ALIKE, ALIKE_LEVELS = 1.5, 1.5, 4.5
CANDIDATES = 24
#: A patch is given up when the colours under it differ by this much (squared) more than when it was laid, or than so many levels.
GIVE_UP, GIVE_UP_LEVELS = 3.0, 8.0
#: Frames in which a patch comes and goes.
FADE_FRAMES = 6
#: What is seen is stored each so many frames, and so many times; every so many pixels a patch may begin.
KEY_FRAMES, KEYS, STRIDE_PX = 8, 7, 4
#: Motion in holes follows that around them: what a generated pixel counts beside a seen one, and over which distance.
GENERATED_WEIGHT, MOTION_SIGMA_PX = 0.05, 8.0
#: Colours of a feature: 5 places, 3 channels.
COLORS = 15


@dataclass(frozen=True)
class _Seen:
    """A key frame: its high band, and where patches of it may begin."""

    number: int
    high: np.ndarray  # float32 [h, w, 3]
    place: np.ndarray  # int [n, 2] rows, columns: centres of patches that were seen whole
    feature: np.ndarray  # float32 [n, 16]
    energy: np.ndarray  # float32 [n] levels squared, mean over the patch
    row_at: np.ndarray  # int [h / STRIDE_PX, w / STRIDE_PX] index into the above, -1 where no patch may begin


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
        self._keys: deque[_Seen] = deque(maxlen=KEYS)
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
            self._remember(seen, known)
        gray = cv2.cvtColor(both, cv2.COLOR_RGB2GRAY)
        self._move(gray, known)
        near = cv2.dilate((~known).astype(np.uint8), np.ones((2 * HALF_PX + 1,) * 2, np.uint8)) > 0
        low = cv2.GaussianBlur(both.astype(np.float32), (0, 0), LOW_SIGMA_PX)
        self._retire(low, near)
        self._lay(low, near)
        self._last = gray, known
        self._count += 1
        return _lacking(self._drawn(known.shape), generated) * ~known[..., None]

    def _remember(self, seen: np.ndarray, known: np.ndarray) -> None:
        import cv2

        h, w = known.shape
        if min(h, w) < 2 * HALF_PX + 4:
            return
        sure = cv2.erode(
            known.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0
        )
        fine = _smooth(seen, known, self._finest_px) if self._finest_px else seen
        high = (fine - _smooth(seen, known, HIGH_SIGMA_PX)) * sure[..., None]
        low, size = _smooth(seen, known, LOW_SIGMA_PX), (2 * HALF_PX, 2 * HALF_PX)
        whole = cv2.boxFilter(sure.astype(np.float32), -1, size, borderType=cv2.BORDER_CONSTANT) > 0.98
        energy = cv2.boxFilter((high**2).mean(axis=-1), -1, size)
        rows, columns = np.nonzero(whole[::STRIDE_PX, ::STRIDE_PX])
        place = np.stack([rows, columns], axis=1) * STRIDE_PX
        inside = ((place >= HALF_PX + 1) & (place < np.array([h, w]) - HALF_PX - 1)).all(axis=1)
        place = place[inside]
        row_at = np.full((-(-h // STRIDE_PX), -(-w // STRIDE_PX)), -1)
        row_at[place[:, 0] // STRIDE_PX, place[:, 1] // STRIDE_PX] = np.arange(len(place))
        chosen = energy[place[:, 0], place[:, 1]]
        self._keys.append(_Seen(self._count, high, place, _features(low, place), chosen, row_at))

    def _move(self, gray: np.ndarray, known: np.ndarray) -> None:
        import cv2

        patches = self._patches
        patches.age += 1
        patches.leaving = np.maximum(patches.leaving - 1, 0) + (patches.leaving == 1)  # 1 is the end
        if self._last is None or not len(patches.place):
            return
        before, seen = self._last
        flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(before, gray, None)  # type: ignore[call-overload]
        weight = np.where(seen, 1, GENERATED_WEIGHT).astype(np.float32)[..., None]
        flow = _blur(flow * weight, MOTION_SIGMA_PX) / _blur(weight, MOTION_SIGMA_PX)[..., None]
        y, x = _pixels(patches.place, known.shape)
        patches.place = patches.place + flow[y, x, ::-1]

    def _retire(self, low: np.ndarray, near: np.ndarray) -> None:
        """Drop patches that have faded or are needed no more; those that lie too close or no longer fit begin to fade."""
        patches, (h, w) = self._patches, near.shape
        inside = ((patches.place > -HALF_PX) & (patches.place < [h + HALF_PX, w + HALF_PX])).all(axis=1)
        y, x = _pixels(patches.place, near.shape)
        patches.keep(inside & near[y, x] & (patches.leaving != 1))
        if not len(patches.place):
            return
        now = _features(low, np.stack(_pixels(patches.place, near.shape), axis=1))
        changed = ((now - patches.feature)[:, :COLORS] ** 2).sum(axis=1)
        unfit = changed > GIVE_UP * np.maximum(patches.mismatch, COLORS * GIVE_UP_LEVELS**2)
        apart = _apart(patches.place, patches.place)
        apart[np.triu_indices(len(apart))] = np.inf  # the older one stays
        apart[:, patches.leaving > 0] = np.inf
        close = apart.min(axis=1) < (0.45 * STEP_PX) ** 2
        patches.leaving[(unfit | close) & (patches.leaving == 0)] = FADE_FRAMES + 1

    def _lay(self, low: np.ndarray, near: np.ndarray) -> None:
        """New patches where none is near."""
        keys, patches, (h, w) = [key for key in self._keys if len(key.place)], self._patches, near.shape
        if not keys:
            return
        step = STEP_PX // 2 if len(patches.place) else STEP_PX
        grid = np.stack(np.meshgrid(np.arange(0, h + step, step), np.arange(0, w + step, step), indexing="ij"), axis=-1)
        grid = grid.reshape(-1, 2)
        grid = grid[near[_pixels(grid, near.shape)]]
        staying = patches.leaving == 0
        taken = [*patches.place[staying]]
        sources = [*patches.source[staying]]
        if len(taken):
            grid = grid[_apart(grid, np.array(taken)).min(axis=1) >= (0.85 * STEP_PX) ** 2]
        if not len(grid):
            return
        wanted = _features(low, np.stack(_pixels(grid, near.shape), axis=1))
        feature = np.concatenate([key.feature for key in keys])
        energy = np.concatenate([key.energy for key in keys])
        origin = np.concatenate([np.insert(key.place, 0, key.number, axis=1) for key in keys]).astype(float)
        first = dict(zip([key.number for key in keys], np.cumsum([0, *(len(key.place) for key in keys)]), strict=False))
        by_number = {key.number: key for key in keys}
        own = (feature**2).sum(axis=1) + COLORS * ENERGY_SHARE * energy
        usual = np.log1p(energy)
        laid: list[tuple[int, int, np.ndarray]] = []  # place in the grid, row of the bank, source
        for i, point in enumerate(grid):
            beside = _apart(point[None], np.array(taken))[0] if taken else np.zeros(0)
            if len(beside) and beside.min() < (0.85 * STEP_PX) ** 2:
                continue
            cost = own - 2 * (feature @ wanted[i]) + wanted[i] @ wanted[i]
            count = min(CANDIDATES, len(cost))
            best = np.argpartition(cost, count - 1)[:count]
            least = max(float(cost[best].min()), 0.0)
            best = best[cost[best] <= ALIKE * least + COLORS * ALIKE_LEVELS**2]
            row = int(best[np.argmin(np.abs(usual[best] - np.median(usual[best])))])
            source, limit = origin[row], GO_ON * (least + COLORS * ALIKE_LEVELS**2)
            for j in np.nonzero(beside < (1.6 * STEP_PX) ** 2)[0]:
                key = by_number.get(int(sources[j][0]))
                if key is None:
                    continue
                on = sources[j][1:] + point - taken[j]
                gy, gx = np.rint(on / STRIDE_PX).astype(int)
                if not (0 <= gy < key.row_at.shape[0] and 0 <= gx < key.row_at.shape[1]) or key.row_at[gy, gx] < 0:
                    continue
                there = int(first[key.number] + key.row_at[gy, gx])
                if cost[there] <= limit:
                    limit, row, source = cost[there], there, np.array([key.number, *on])
            taken.append(point.astype(float))
            sources.append(source)
            laid.append((i, row, source))
        chosen, rows = np.array([i for i, _, _ in laid]), np.array([row for _, row, _ in laid])
        mismatch = ((feature[rows] - wanted[chosen]) ** 2).sum(axis=1)
        strength = np.exp(-mismatch / (2 * COLORS * TRUST_LEVELS**2)) / np.sqrt(1 + energy[rows] / SOFT_LEVELS**2)
        pixels = np.stack([_cut(by_number[int(s[0])].high, s[1], s[2]) for _, _, s in laid])
        patches.add(
            _Patches(
                grid[chosen].astype(float),
                pixels * strength[:, None, None, None].astype(np.float32),
                np.stack([source for _, _, source in laid]),
                wanted[chosen],
                mismatch.astype(float),
                np.full(len(laid), 0.0 if self._count else float(FADE_FRAMES)),
                np.zeros(len(laid), int),
            )
        )

    def _drawn(self, hw: tuple[int, ...]) -> np.ndarray:
        """All patches in their places; the nearest one counts most, so that their texture is not averaged away."""
        import cv2

        patches, margin, side = self._patches, 2 * HALF_PX, 2 * HALF_PX
        total = np.zeros((hw[0] + 2 * margin, hw[1] + 2 * margin, 4), np.float32)
        leaving = np.where(patches.leaving > 0, (patches.leaving - 1) / FADE_FRAMES, 1)
        shown = (np.minimum(patches.age / FADE_FRAMES, 1) * leaving) ** 2
        weight = np.outer(*2 * [np.hanning(side + 2)[1:-1]]).astype(np.float32) ** 2
        ones = np.ones((side, side, 1), np.float32)
        for place, pixels, share in zip(patches.place, patches.pixels, shown, strict=True):
            y, x = np.rint(place).astype(int)
            part = cv2.getRectSubPix(pixels, (side, side), (HALF_PX + 0.5 + x - place[1], HALF_PX + 0.5 + y - place[0]))
            y, x = y + margin - HALF_PX, x + margin - HALF_PX
            total[y : y + side, x : x + side] += np.concatenate([part, ones], axis=2) * (weight * share)[..., None]
        total = total[margin:-margin, margin:-margin]
        return total[..., :3] / np.maximum(total[..., 3:], 0.03)  # thin cover is faint, not stretched


def _lacking(detail: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Detail, weaker where the generated picture has some of its own: together they have the energy of the detail."""
    own = _blur(((generated - _blur(generated, HIGH_SIGMA_PX)) ** 2).mean(axis=-1), 2 * HIGH_SIGMA_PX)
    energy = _blur((detail**2).mean(axis=-1), 2 * HIGH_SIGMA_PX)
    return detail * np.sqrt(np.clip(1 - own / (energy + 1e-2), 0, 1))[..., None]


def _cut(high: np.ndarray, y: float, x: float) -> np.ndarray:
    import cv2

    return cv2.getRectSubPix(high, (2 * HALF_PX + 2, 2 * HALF_PX + 2), (x - 0.5, y - 0.5))


def _blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), sigma)


def _smooth(picture: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the known pixels only, float32."""
    weight = known.astype(np.float32)
    return _blur(picture * weight[..., None], sigma) / np.maximum(_blur(weight, sigma), 1e-4)[..., None]


def _features(low: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Colours at and around each place [n, 2], and its height: float32 [n, 16]."""
    h = len(low)
    around = ((0, 0), (-AROUND_PX, 0), (AROUND_PX, 0), (0, -AROUND_PX), (0, AROUND_PX))
    colors = [low[_pixels(place + offset, low.shape)] for offset in around]
    return np.concatenate([*colors, place[:, :1] * (HEIGHT_LEVELS / h)], axis=1).astype(np.float32)


def _pixels(place: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pixels of the picture: rows and columns."""
    y, x = np.clip(np.rint(place), 0, np.array(shape[:2]) - 1).astype(int).T
    return y, x


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances [len(a), len(b)]."""
    return ((a[:, None] - b[None]) ** 2).sum(axis=-1)
