"""Numba kernels of pull-push and of the held fill; undecorated by shape checks.

Each does rows first..last-1 without the GIL: threads of our own (`bands.py`) take bands of rows. Numba's own threads would take
three times as long to compile, which is most of a short clip's first run.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def pull(first, last, color, weight, log_z, penalty, color_out, weight_out, z_out):
    """One level down: 2x2 blocks, far children first. float32 [h, w, 3], [h, w], [h, w] into zeros of half the size."""
    h, w = weight.shape
    for i in range(first, last):
        for j in range(weight_out.shape[1]):
            far = np.float32(-np.inf)
            for di in range(2):
                for dj in range(2):
                    y, x = 2 * i + di, 2 * j + dj
                    if y < h and x < w and weight[y, x] > 0:
                        far = max(far, log_z[y, x])
            if far == -np.inf:
                continue
            total, known = np.float32(0), np.float32(0)
            r, g, b, z = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for di in range(2):
                for dj in range(2):
                    y, x = 2 * i + di, 2 * j + dj
                    if y < h and x < w and weight[y, x] > 0:
                        nearer = np.float32(1) - np.float32(math.exp(log_z[y, x] - far))
                        say = weight[y, x] * np.float32(math.exp(-penalty * nearer))
                        r += say * color[y, x, 0]
                        g += say * color[y, x, 1]
                        b += say * color[y, x, 2]
                        z += say * log_z[y, x]
                        total += say
                        known += weight[y, x]
            color_out[i, j, 0], color_out[i, j, 1], color_out[i, j, 2] = r / total, g / total, b / total
            z_out[i, j] = z / total
            weight_out[i, j] = min(known, np.float32(1))


@njit(cache=True, nogil=True)
def push(first, last, color, weight, log_z, coarse, coarse_z, penalty, out, z_out):
    """One level up: bilinear from the coarse level where the fine one knows nothing it can be trusted with, into `out`, `z_out`."""
    w = weight.shape[1]
    hh, ww = coarse_z.shape
    for i in range(first, last):
        v = np.float32(0.5 * i - 0.25)
        i0 = int(math.floor(v))
        fi = v - np.float32(i0)
        a, b = max(i0, 0), min(i0 + 1, hh - 1)
        for j in range(w):
            if weight[i, j] == 1 and penalty == 0:
                z_out[i, j] = log_z[i, j]
                for c in range(3):
                    out[i, j, c] = color[i, j, c]
                continue
            u = np.float32(0.5 * j - 0.25)
            j0 = int(math.floor(u))
            fj = u - np.float32(j0)
            p, q = max(j0, 0), min(j0 + 1, ww - 1)
            w00, w01 = (1 - fi) * (1 - fj), (1 - fi) * fj
            w10, w11 = fi * (1 - fj), fi * fj
            up_z = w00 * coarse_z[a, p] + w01 * coarse_z[a, q] + w10 * coarse_z[b, p] + w11 * coarse_z[b, q]
            trust = np.float32(0)
            if weight[i, j] > 0:
                nearer = np.float32(1) - np.float32(math.exp(min(log_z[i, j] - up_z, np.float32(0))))
                trust = weight[i, j] * np.float32(math.exp(-penalty * nearer))
            z_out[i, j] = up_z + trust * (log_z[i, j] - up_z)
            for c in range(3):
                up = w00 * coarse[a, p, c] + w01 * coarse[a, q, c] + w10 * coarse[b, p, c] + w11 * coarse[b, q, c]
                out[i, j, c] = up + trust * (color[i, j, c] - up)


@njit(cache=True, nogil=True)
def held(
    first, last, filled, known, depth, before, invented, last_depth, inverse_K, last_from_cam, last_K, share, same
):  # fmt: skip
    """Blend what the last frame invented on the same hidden surface into `filled`, in place.

    float32 [h, w, 3], bool, float32; float64 3x3 inverse K, 4x4 motion, 3x3 K of the last camera.
    """
    h, w = known.shape
    for i in range(first, last):
        for j in range(w):
            z = depth[i, j]
            if known[i, j] or not np.isfinite(z):
                continue
            x, y = j + 0.5, i + 0.5
            rx = inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2]
            ry = inverse_K[1, 1] * y + inverse_K[1, 2]
            px, py, pz = rx * z, ry * z, float(z)
            qx = last_from_cam[0, 0] * px + last_from_cam[0, 1] * py + last_from_cam[0, 2] * pz + last_from_cam[0, 3]
            qy = last_from_cam[1, 0] * px + last_from_cam[1, 1] * py + last_from_cam[1, 2] * pz + last_from_cam[1, 3]
            qz = last_from_cam[2, 0] * px + last_from_cam[2, 1] * py + last_from_cam[2, 2] * pz + last_from_cam[2, 3]
            if qz <= 1e-6:
                continue
            u = (last_K[0, 0] * qx + last_K[0, 1] * qy) / qz + last_K[0, 2]
            v = last_K[1, 1] * qy / qz + last_K[1, 2]
            if not (0 < u < w and 0 < v < h):
                continue
            col, row = int(u), int(v)
            if not invented[row, col] or abs(last_depth[row, col] - qz) > same * qz:
                continue
            u, v = min(max(u - 0.5, 0.0), w - 1.0), min(max(v - 0.5, 0.0), h - 1.0)
            j0, i0 = int(u), int(v)
            fj, fi = u - j0, v - i0
            j1, i1 = min(j0 + 1, w - 1), min(i0 + 1, h - 1)
            for c in range(3):
                top = before[i0, j0, c] * (1 - fj) + before[i0, j1, c] * fj
                bottom = before[i1, j0, c] * (1 - fj) + before[i1, j1, c] * fj
                filled[i, j, c] += share * (top * (1 - fi) + bottom * fi - filled[i, j, c])
