"""What was seen of a clip, as patches to copy: their high band, the low band by which they are found, and which one is taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

#: Patches reach so far from their centre; pixels of the model's size.
HALF_PX = 12
#: Scale of what is copied, and of the colours by which patches are compared.
HIGH_SIGMA_PX, LOW_SIGMA_PX = 4.0, 6.0
#: Colours are compared at a place and so far up, down, left and right of it: 5 places, 3 channels.
AROUND_PX, COLORS = 8, 15
#: Levels that a difference in height counts, over the whole picture: floors are below, skies above.
HEIGHT_LEVELS = 128.0
#: A patch is as good as its expected squared error: colour mismatch, and this share of the detail's energy. Without it the stripes
#: of an object appear in a sky of the same mean colour.
ENERGY_SHARE = 0.3
#: So many of the best are looked at, as far as they are so close to the very best (share, and levels a colour).
CANDIDATES, ALIKE, ALIKE_LEVELS = 24, 1.5, 4.5
#: A neighbour's source goes on when it is at most so much worse than that.
GO_ON = 1.5
#: A patch may begin every so many pixels.
STRIDE_PX = 4


@dataclass(frozen=True)
class Seen:
    """A key frame.

    Attributes:
        number: Of the frame.
        high: Its high band, 0 where not known; levels, float32 [h, w, 3].
        place: Rows and columns of the centres of patches that were seen whole, int [n, 2].
        feature: What they must match (`features`), float32 [n, 16].
        energy: Mean square of their detail, levels squared, float32 [n].
        row_at: Index into these by place over STRIDE_PX; -1 where no patch may begin.
    """

    number: int
    high: np.ndarray
    place: np.ndarray
    feature: np.ndarray
    energy: np.ndarray
    row_at: np.ndarray

    @classmethod
    def of(cls, number: int, picture: np.ndarray, known: np.ndarray, finest_px: float) -> Seen:
        """Read the known pixels of a picture, uint8 [h, w, 3]; detail finer than `finest_px` (sigma) is left out."""
        import cv2

        h, w = known.shape
        size, constant = (2 * HALF_PX, 2 * HALF_PX), cv2.BORDER_CONSTANT
        sure = cv2.erode(known.astype(np.uint8), np.ones((5, 5), np.uint8), borderType=constant, borderValue=0)
        fine = smooth(picture, known, finest_px) if finest_px else picture
        high = (fine - smooth(picture, known, HIGH_SIGMA_PX)) * sure[..., None]
        whole = cv2.boxFilter(sure.astype(np.float32), -1, size, borderType=constant) > 0.98
        energy = cv2.boxFilter((high**2).mean(axis=-1), -1, size)
        place = np.argwhere(whole[::STRIDE_PX, ::STRIDE_PX]) * STRIDE_PX
        place = place[((place > HALF_PX) & (place < np.array([h, w]) - HALF_PX - 1)).all(axis=1)]
        row_at = np.full((-(-h // STRIDE_PX), -(-w // STRIDE_PX)), -1)
        row_at[place[:, 0] // STRIDE_PX, place[:, 1] // STRIDE_PX] = np.arange(len(place))
        feature = features(smooth(picture, known, LOW_SIGMA_PX), place)
        return cls(number, high, place, feature, energy[place[:, 0], place[:, 1]], row_at)


class Bank:
    """The patches of some key frames, in rows."""

    def __init__(self, keys: Iterable[Seen]) -> None:
        found = [key for key in keys if len(key.place)]
        self._keys = {key.number: key for key in found}
        self._first = dict(zip(self._keys, np.cumsum([0, *(len(key.place) for key in found)]), strict=False))
        empty = np.zeros((0, COLORS + 1), np.float32)
        self.feature = np.concatenate([empty, *(key.feature for key in found)])
        self.energy = np.concatenate([empty[:, 0], *(key.energy for key in found)])
        #: Key frame, row and column of each.
        self.source = np.concatenate(
            [np.zeros((0, 3)), *(np.insert(key.place, 0, key.number, axis=1).astype(float) for key in found)]
        )
        self._own = (self.feature**2).sum(axis=1) + COLORS * ENERGY_SHARE * self.energy
        self._energy_log = np.log1p(self.energy)

    def __len__(self) -> int:
        return len(self.energy)

    def costs(self, wanted: np.ndarray) -> np.ndarray:
        """Expected squared error of every patch for a feature."""
        return self._own - 2 * (self.feature @ wanted) + wanted @ wanted

    def usual(self, cost: np.ndarray) -> tuple[int, float]:
        """Among the best, the one whose detail is neither the strongest nor the weakest; and the cost up to which another may go on."""
        count = min(CANDIDATES, len(cost))
        best = np.argpartition(cost, count - 1)[:count]
        least, slack = max(float(cost[best].min()), 0.0), COLORS * ALIKE_LEVELS**2
        best = best[cost[best] <= ALIKE * least + slack]
        row = best[np.argmin(np.abs(self._energy_log[best] - np.median(self._energy_log[best])))]
        return int(row), GO_ON * (least + slack)

    def row_of(self, source: np.ndarray) -> int:
        """The row next to (key frame, row, column), -1 where there is none."""
        key = self._keys.get(int(source[0]))
        if key is None:
            return -1
        y, x = np.rint(source[1:] / STRIDE_PX).astype(int)
        if not (0 <= y < key.row_at.shape[0] and 0 <= x < key.row_at.shape[1]) or key.row_at[y, x] < 0:
            return -1
        return int(self._first[key.number] + key.row_at[y, x])

    def cut(self, source: np.ndarray) -> np.ndarray:
        """Detail around (key frame, row, column), a pixel more than a patch on each side."""
        import cv2

        side = 2 * HALF_PX + 2
        return cv2.getRectSubPix(self._keys[int(source[0])].high, (side, side), (source[2] - 0.5, source[1] - 0.5))


def features(low: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Colours of a blurred picture at and around each place [n, 2], and its height: float32 [n, 16]."""
    around = ((0, 0), (-AROUND_PX, 0), (AROUND_PX, 0), (0, -AROUND_PX), (0, AROUND_PX))
    colors = [low[pixels(place + offset, low.shape)] for offset in around]
    return np.concatenate([*colors, place[:, :1] * (HEIGHT_LEVELS / len(low))], axis=1).astype(np.float32)


def pixels(place: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The nearest pixels of the picture: rows and columns."""
    y, x = np.clip(np.rint(place), 0, np.array(shape[:2]) - 1).astype(int).T
    return y, x


def blur(picture: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian, same shape."""
    import cv2

    return cv2.GaussianBlur(picture, (0, 0), sigma).reshape(picture.shape)


def smooth(picture: np.ndarray, known: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the known pixels only, float32."""
    weight = known.astype(np.float32)[..., None]
    return blur(picture * weight, sigma) / np.maximum(blur(weight, sigma), 1e-4)
