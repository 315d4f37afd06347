"""Numba kernels of pull-push and of the held fill; undecorated by shape checks."""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange


@njit(cache=True, parallel=True)
def pull(color, weight, log_z, penalty):
    """One level down: 2x2 blocks, far children first. float32 [h, w, 3], [h, w], [h, w]."""
    h, w = weight.shape
    hh, ww = (h + 1) // 2, (w + 1) // 2
    color_out = np.zeros((hh, ww, 3), np.float32)
    weight_out = np.zeros((hh, ww), np.float32)
    z_out = np.zeros((hh, ww), np.float32)
    for i in prange(hh):
        for j in range(ww):
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
    return color_out, weight_out, z_out


@njit(cache=True, parallel=True)
def push(color, weight, log_z, coarse, coarse_z, penalty):
    """One level up: bilinear from the coarse level where the fine one knows nothing it can be trusted with."""
    h, w = weight.shape
    hh, ww = coarse_z.shape
    out = np.empty((h, w, 3), np.float32)
    z_out = np.empty((h, w), np.float32)
    for i in prange(h):
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
    return out, z_out


@njit(cache=True, parallel=True)
def held(filled, known, depth, last, invented, last_depth, inverse_K, last_from_cam, last_K, share, same):
    """Blend what the last frame invented on the same hidden surface into `filled`, in place.

    float32 [h, w, 3], bool, float32; float64 3x3 inverse K, 4x4 motion, 3x3 K of the last camera.
    """
    h, w = known.shape
    for i in prange(h):
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
                top = last[i0, j0, c] * (1 - fj) + last[i0, j1, c] * fj
                bottom = last[i1, j0, c] * (1 - fj) + last[i1, j1, c] * fj
                before = top * (1 - fi) + bottom * fi
                filled[i, j, c] += share * (before - filled[i, j, c])
