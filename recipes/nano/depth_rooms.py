"""Ray cast the scenes of depth_layout.py in batches on the training device: colour and exact depth of short clips, endlessly.

On a GPU one Triton kernel finds what the rays hit; elsewhere the same loop runs in PyTorch (slow, for tests).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from depth_layout import SLOTS, make_layout
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

try:
    import triton
    import triton.language as tl
except ImportError:  # no GPU build
    triton = None

#: Nearest hit, in units of the ray's direction (metres of depth for a camera's rays); "no hit" in them.
NEAR_HIT, NO_HIT = 2e-3, 1e9
TEXTURE_PX, LEVELS = 256, 8
#: Places of the samples in a pixel (a rotated grid).
SAMPLES = ((-0.125, -0.375), (0.375, -0.125), (-0.375, 0.125), (0.125, 0.375))

# --- intersection ---
if triton is not None:

    @triton.jit
    def _slab(lo, ld):
        inv = 1.0 / tl.where(tl.abs(ld) < 1e-8, 1e-8, ld)
        a, b = (-1.0 - lo) * inv, (1.0 - lo) * inv
        return tl.minimum(a, b), tl.maximum(a, b)

    @triton.jit
    def _round(a, b, c):
        a = tl.maximum(a, 1e-12)
        disc = b * b - a * c
        root = tl.sqrt(tl.maximum(disc, 0.0))
        near = tl.where(disc > 0, (-b - root) / a, 1e9)
        far = tl.where(disc > 0, (-b + root) / a, -1e9)
        return near, far

    @triton.jit
    def _local(prims, ox, oy, oz, dx, dy, dz):
        a0, a1, a2 = tl.load(prims), tl.load(prims + 1), tl.load(prims + 2)
        a3, a4, a5 = tl.load(prims + 3), tl.load(prims + 4), tl.load(prims + 5)
        a6, a7, a8 = tl.load(prims + 6), tl.load(prims + 7), tl.load(prims + 8)
        b0, b1, b2 = tl.load(prims + 9), tl.load(prims + 10), tl.load(prims + 11)
        return (
            a0 * ox + a1 * oy + a2 * oz + b0,
            a3 * ox + a4 * oy + a5 * oz + b1,
            a6 * ox + a7 * oy + a8 * oz + b2,
            a0 * dx + a1 * dy + a2 * dz,
            a3 * dx + a4 * dy + a5 * dz,
            a6 * dx + a7 * dy + a8 * dz,
        )

    @triton.jit
    def _trace_kernel(rays, prims, count, t_out, id_out, R, P, CYL, ELL, BLOCK: tl.constexpr):
        frame = tl.program_id(1)
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        ok = at < R
        base = rays + frame.to(tl.int64) * 6 * R + at
        ox, oy, oz = tl.load(base, ok), tl.load(base + R, ok), tl.load(base + 2 * R, ok)
        dx, dy, dz = tl.load(base + 3 * R, ok), tl.load(base + 4 * R, ok), tl.load(base + 5 * R, ok)
        best = tl.full([BLOCK], 1e9, tl.float32)
        found = tl.full([BLOCK], -1, tl.int32)
        table = prims + frame.to(tl.int64) * P * 12
        boxes, cylinders = tl.load(count + frame * 3), tl.load(count + frame * 3 + 1)
        balls = tl.load(count + frame * 3 + 2)
        for k in range(boxes):
            lx, ly, lz, ex, ey, ez = _local(table + k * 12, ox, oy, oz, dx, dy, dz)
            nx, fx = _slab(lx, ex)
            ny, fy = _slab(ly, ey)
            nz, fz = _slab(lz, ez)
            near = tl.maximum(nx, tl.maximum(ny, nz))
            far = tl.minimum(fx, tl.minimum(fy, fz))
            hit = (near < far) & (near > 2e-3) & (near < best)
            best = tl.where(hit, near, best)
            found = tl.where(hit, k, found)
        for j in range(cylinders):
            k = CYL + j
            lx, ly, lz, ex, ey, ez = _local(table + k * 12, ox, oy, oz, dx, dy, dz)
            nr, fr = _round(ex * ex + ez * ez, lx * ex + lz * ez, lx * lx + lz * lz - 1.0)
            ny, fy = _slab(ly, ey)
            near, far = tl.maximum(nr, ny), tl.minimum(fr, fy)
            hit = (near < far) & (near > 2e-3) & (near < best)
            best = tl.where(hit, near, best)
            found = tl.where(hit, k, found)
        for j in range(balls):
            k = ELL + j
            lx, ly, lz, ex, ey, ez = _local(table + k * 12, ox, oy, oz, dx, dy, dz)
            near, far = _round(
                ex * ex + ey * ey + ez * ez, lx * ex + ly * ey + lz * ez, lx * lx + ly * ly + lz * lz - 1.0
            )
            hit = (near < far) & (near > 2e-3) & (near < best)
            best = tl.where(hit, near, best)
            found = tl.where(hit, k, found)
        out = frame.to(tl.int64) * R + at
        tl.store(t_out + out, best, ok)
        tl.store(id_out + out, found, ok)


def trace(rays: Tensor, prims: Tensor, count: Tensor, plain: bool | None = None) -> tuple[Tensor, Tensor]:
    """What rays hit first.

    Args:
        rays: [N, 6, R] origin and direction.
        prims: [N, P, 12], the rows of A and then b: a point is inside after A x + b; kinds at the starts of their slots.
        count: int32 [N, 3].
        plain: Without the kernel.

    Returns:
        t [N, R] along the direction (`NO_HIT`), index int32 [N, R] (-1).
    """
    n, _, r = rays.shape
    if not (not rays.is_cuda if plain is None else plain):
        t = torch.empty(n, r, device=rays.device)
        index = torch.empty(n, r, device=rays.device, dtype=torch.int32)
        block = 256
        _trace_kernel[(triton.cdiv(r, block), n)](
            rays.contiguous(), prims.contiguous(), count.contiguous(), t, index, r, prims.shape[1], SLOTS[0],
            SLOTS[0] + SLOTS[1], BLOCK=block, num_warps=4,
        )  # fmt: skip
        return t, index
    best = torch.full((n, r), NO_HIT, device=rays.device)
    index = torch.full((n, r), -1, dtype=torch.int32, device=rays.device)
    starts = (0, SLOTS[0], SLOTS[0] + SLOTS[1])
    for kind, start in enumerate(starts):
        for k in range(start, start + int(count[:, kind].max())):
            A, b = prims[:, k, :9].unflatten(1, (3, 3)), prims[:, k, 9:]
            o, d = A @ rays[:, :3] + b[..., None], A @ rays[:, 3:]
            inv = 1 / torch.where(d.abs() < 1e-8, 1e-8, d)
            low, high = (-1 - o) * inv, (1 - o) * inv
            near3, far3 = torch.minimum(low, high), torch.maximum(low, high)
            if kind == 0:
                near, far = near3.amax(1), far3.amin(1)
            else:
                keep = [0, 2] if kind == 1 else [0, 1, 2]
                a = (d[:, keep] ** 2).sum(1).clamp_min(1e-12)
                h, c = (o[:, keep] * d[:, keep]).sum(1), (o[:, keep] ** 2).sum(1) - 1
                disc = h * h - a * c
                root = disc.clamp_min(0).sqrt()
                near, far = torch.where(disc > 0, (-h - root) / a, 1e9), torch.where(disc > 0, (-h + root) / a, -1e9)
                if kind == 1:
                    near, far = torch.maximum(near, near3[:, 1]), torch.minimum(far, far3[:, 1])
            hit = (near < far) & (near > NEAR_HIT) & (near < best) & (k - start < count[:, kind])[:, None]
            best, index = torch.where(hit, near, best), torch.where(hit, k, index)
    return best, index.to(torch.int32)


# --- textures ---
def make_textures(count: int, clips: Path | None, seed: int, procedural: int = 120) -> Tensor:
    """[count, 256, 256, 3] in 0..1, linear light, mirror-tiled later: procedural ones and crops of the training clips' frames."""
    from ex4d.scenes import textures as tex

    rng = np.random.default_rng((20261122, 13, seed))
    real = _crops(clips, count // 2, rng) if clips else []
    makers = (
        tex.plaster,
        tex.plaid,
        tex.spots,
        tex.poster,
        tex.marble,
        tex.planks,
        tex.tiles,
        tex.stone,
        tex.bricks,
        tex.grass,
    )
    made = [makers[k % len(makers)](rng) for k in range(min(procedural, count))]
    made += [_print(rng) for _ in range(min(60, max(count - len(made) - len(real), 0)))]
    while len(made) + len(real) < count:  # more of them, cut, turned and recoloured
        a = made[rng.integers(len(made))]
        if rng.random() < 0.4:
            grain = tex.fbm(rng, rng.uniform(0.4, 1.8), rng.choice([1.0, 1.0, 4.0, 12.0]))[..., None]
            a = grain * tex.palette(rng, 1)[0] + (1 - grain) * tex.palette(rng, 1)[0]
        a = np.roll(np.rot90(a, rng.integers(4)), rng.integers(256, size=2), (0, 1))
        made.append(np.clip(a[..., rng.permutation(3)] * rng.uniform(0.5, 1.3, 3), 0, 1))
    return torch.from_numpy(np.stack([np.asarray(t, np.float32).clip(0, 1) for t in (real + made)[:count]]))


def _print(rng: np.random.Generator) -> np.ndarray:
    """Lines of words, blocks and pictures: paper, posters, screens, labels, spines."""
    page = np.full(
        (TEXTURE_PX, TEXTURE_PX, 3), rng.uniform(0.4, 1, 3) if rng.random() < 0.6 else rng.uniform(0, 0.3, 3)
    )
    ink = rng.uniform(0, 1, 3)
    for _ in range(rng.integers(0, 5)):
        y, x = rng.integers(0, 200, 2)
        page[y : y + rng.integers(10, 120), x : x + rng.integers(10, 160)] = rng.uniform(0, 1, 3)
    height = int(rng.integers(2, 14))
    for y in range(int(rng.integers(4, 30)), 250, int(height * rng.uniform(1.5, 3)) + 1):
        x = int(rng.integers(0, 60))
        while x < 250 and rng.random() < 0.93:
            w = int(rng.integers(height, height * 7))
            page[y : y + height, x : x + w] = (
                ink * rng.uniform(0.6, 1.2) if rng.random() < 0.95 else rng.uniform(0, 1, 3)
            )
            x += w + height
    return np.clip(page, 0, 1) ** 2.2


def _crops(clips: Path, count: int, rng: np.random.Generator) -> list[np.ndarray]:
    import cv2
    from clips import HELD_OUT

    paths = [p for p in sorted(clips.glob("*.mp4")) if not p.stem.startswith(HELD_OUT)]
    out: list[np.ndarray] = []
    for path in paths:
        capture = cv2.VideoCapture(str(path))
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        share = -(-count // len(paths))
        for at in np.sort(rng.integers(0, max(total, 1), max(share // 3, 1))):
            capture.set(cv2.CAP_PROP_POS_FRAMES, int(at))
            ok, frame = capture.read()
            if not ok:
                continue
            h, w = frame.shape[:2]
            for _ in range(3):
                side = int(min(h, w) * rng.uniform(0.15, 0.9))
                y, x = rng.integers(0, h - side + 1), rng.integers(0, w - side + 1)
                crop = cv2.resize(
                    frame[y : y + side, x : x + side, ::-1], (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_AREA
                )
                out.append((crop.astype(np.float32) / 255) ** 2.2)
        capture.release()
    return out[:count]


class TextureBank:
    """All textures with their mip levels in one float16 table, for one gather a texel."""

    def __init__(self, textures: Tensor, device: str) -> None:
        level = textures.to(device).permute(0, 3, 1, 2)
        self.count, tables, starts, start = textures.shape[0], [], [], 0
        for _ in range(LEVELS):
            starts.append(start)
            tables.append(level.permute(0, 2, 3, 1).reshape(-1, 3).half())
            start += tables[-1].shape[0]
            level = F.avg_pool2d(level, 2)
        self.table = torch.cat(tables)
        self.starts = torch.tensor(starts, device=device)

    def sample(self, which: Tensor, u: Tensor, v: Tensor, lod: Tensor) -> Tensor:
        """Bilinear at the nearest level; u, v in tiles (mirrored every other one). All of one shape [...]; returns [..., 3]."""
        # an index out of bounds would end the training: whatever is not finite reads some texel
        lod, u, v = (x.nan_to_num(0, 0, 0) for x in (lod, u, v))
        level = lod.round().clamp(0, LEVELS - 1).long()
        side = TEXTURE_PX >> level
        first = self.starts[level] + which.long().clamp(0, self.count - 1) * side * side
        out = 0
        x, y = ((1 - ((c % 2) - 1).abs()) * (side - 1) for c in (u, v))
        x0, y0 = x.floor(), y.floor()
        fx, fy = (x - x0)[..., None], (y - y0)[..., None]
        for dy in (0, 1):
            for dx in (0, 1):
                xi, yi = (torch.minimum((c.long() + k).clamp_min(0), side - 1) for c, k in ((x0, dx), (y0, dy)))
                weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
                out = out + weight * self.table[first + yi * side + xi].float()
        return out


# --- pictures ---
class RoomRenderer:
    """Colour and depth of layouts."""

    def __init__(self, bank: TextureBank, size_hw: tuple[int, int]) -> None:
        self.bank, self.size_hw = bank, size_hw

    @torch.no_grad()
    def __call__(self, layout: dict[str, Tensor], samples: int = 4) -> tuple[Tensor, Tensor]:
        """Layouts [B, ...] on the device, to uint8 [B, T, 3, H, W] and float16 depth [B, T, H, W] (metres; 0: not known)."""
        h, w = self.size_hw
        batch, frames = layout["eye"].shape[:2]
        device = layout["eye"].device
        A = layout["to_local"]
        shift = -(A[:, None] * layout["center"][..., None, :]).sum(-1)
        prims = torch.cat([A.flatten(2)[:, None].expand(-1, frames, -1, -1), shift], -1).flatten(0, 1).contiguous()
        clip = torch.arange(batch, device=device).repeat_interleave(frames)
        count = layout["count"].int()[clip].contiguous()
        eye, R = layout["eye"].flatten(0, 1), layout["rotation"].flatten(0, 1)
        focal = layout["focal"][clip] * w
        ys, xs = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
        color = depth = torch.zeros((), device=device)
        light = None
        for sx, sy in SAMPLES[:samples]:
            x, y = (
                (xs.flatten() + 0.5 + sx - w / 2) / focal[:, None],
                (ys.flatten() + 0.5 + sy - h / 2) / focal[:, None],
            )
            d = (R[..., None] * torch.stack([x, y, torch.ones_like(x)], 1)[:, None]).sum(2)
            o = eye[:, :, None].expand_as(d)
            t, index, axis = self._hit(layout, clip, torch.cat([o, d], 1), prims, count)
            hit = self._surface(layout, clip, prims, o + t[:, None] * d, t, index, axis, d, focal)
            if light is None:
                light, depth = self._light(layout, clip, prims, count, hit, t), t
            color = color + self._shade(layout, clip, hit, d, light)
        color = (color / samples).nan_to_num(0, 0, 0)
        color = color.unflatten(0, (batch, frames))
        level = (
            color.mean(2).flatten(1).quantile(0.6, dim=1)
            if color.numel() < 1e6
            else color[:, :, :, ::97].mean(2).flatten(1).quantile(0.6, dim=1)
        )
        gain = torch.empty(batch, device=device).uniform_(0.08, 0.42) / level.clamp_min(0.02)
        shown = (color * gain[:, None, None, None]).clamp(0, 1) ** (1 / 2.2)
        shown = (shown * 255 + torch.rand_like(shown)).clamp(0, 255).to(torch.uint8).unflatten(-1, (h, w))
        depth = torch.where(torch.isfinite(depth) & (depth > 0), depth.clamp_max(6e4), 0)
        return shown, depth.half().view(batch, frames, h, w)

    def _hit(
        self, layout: dict, clip: Tensor, rays: Tensor, prims: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        t, index = trace(rays, prims, count)
        shell = layout["shell"][clip]
        o, d = rays[:, :3] - shell[:, :3, None], rays[:, 3:]
        d = torch.where(d.abs() < 1e-8, 1e-8, d)
        wall, axis = ((d.sign() * shell[:, 3:6, None] - o) / d).min(dim=1)
        index = torch.where(t < wall, index, -1)
        return torch.minimum(t, wall.clamp_min(0.01)), index.long(), axis

    def _surface(self, layout, clip, prims, p, t, index, axis, d, focal) -> dict[str, Tensor]:
        """World normal [N, 3, R], albedo [N, R, 3], gloss, glow [N, R] of what was hit at p [N, 3, R]."""
        known = index >= 0
        at = index.clamp_min(0)
        mine = prims.gather(1, at[..., None].expand(-1, -1, 12))  # [N, R, 12]
        A, b = mine[..., :9].unflatten(-1, (3, 3)), mine[..., 9:]
        q = (A * p.transpose(1, 2)[..., None, :]).sum(-1) + b  # a matrix product would be tiny and in half precision
        half = layout["half"][clip].gather(1, at[..., None].expand(-1, -1, 3))
        size = q.abs()
        face = F.one_hot(size.argmax(-1), 3) * q.sign()
        ring = size[..., 0].square() + size[..., 2].square() > size[..., 1].square()
        side = torch.where(ring[..., None], q * q.new_tensor([1, 0, 1]), q.sign() * q.new_tensor([0, 1, 0]))
        local = torch.where(
            (at < SLOTS[0])[..., None], face, torch.where((at < SLOTS[0] + SLOTS[1])[..., None], side, q)
        )
        normal = (A * local[..., None]).sum(-2)
        metric, local = q * half, local / half
        # the shell: coordinates of the room, normals inwards
        wall_axis = F.one_hot(axis, 3)
        facing = d.transpose(1, 2).sign()
        shell = layout["shell"][clip]
        normal = torch.where(known[..., None], normal, -(wall_axis * facing))
        metric = torch.where(known[..., None], metric, p.transpose(1, 2))
        local = torch.where(known[..., None], local, wall_axis.float())
        wall = (2 * axis + (facing.gather(2, axis[..., None])[..., 0] > 0)).long()
        normal = normal / normal.norm(dim=-1, keepdim=True).clamp_min(1e-9)
        material = torch.where(known, layout["material"][clip].gather(1, at), shell[:, 6:].gather(1, wall)).long()
        table = layout["materials"][clip]
        m = table.gather(1, material.clamp(0, table.shape[1] - 1)[..., None].expand(-1, -1, 8))
        flat = local.abs().argmax(-1)
        u = torch.where(flat == 0, metric[..., 2], metric[..., 0]) / m[..., 5] + (at * 0.618) % 1
        v = torch.where(flat == 1, metric[..., 2], metric[..., 1]) / m[..., 5] + (at * 0.414) % 1
        cosine = -(normal * F.normalize(d.transpose(1, 2), dim=-1)).sum(-1)
        footprint = t / focal[:, None] * TEXTURE_PX / m[..., 5] / cosine.abs().clamp_min(0.2).sqrt()
        texture = self.bank.sample(m[..., 4], u, v, footprint.clamp_min(1e-3).log2() - 0.3)
        tint, share = m[..., :3], m[..., 3:4]
        albedo = (tint * (1 - share) + share * texture * (0.35 + tint)).clamp(0, 1)
        return {"p": p, "normal": normal, "albedo": albedo, "gloss": m[..., 6], "glow": m[..., 7]}

    def _light(self, layout, clip, prims, count, hit, t) -> Tensor:
        """[N, 2, R]: share of the lamp and of the sky seen; one random ray each, smoothed over neighbours of the same surface."""
        h, w = self.size_hw
        normal, p = hit["normal"].transpose(1, 2), hit["p"]
        start = p + normal * (0.004 + 0.002 * t[:, None])
        lamp = layout["light"][clip]
        soft = 0.12 + 2.0 * lamp[:, 9:]
        to = lamp[:, :3, None] + soft[..., None] * torch.randn_like(p) - start
        reached, _ = trace(torch.cat([start, to], 1), prims, count)
        around = F.normalize(torch.randn_like(p), dim=1) * 0.98 + normal
        near, _ = trace(torch.cat([start, around], 1), prims, count)
        seen = torch.stack([(reached >= 1).float(), (near / 0.8).clamp(0, 1)], 1).unflatten(2, (h, w))
        z = t.clamp_min(1e-3).log().view(-1, 1, h, w)
        total, weights = torch.zeros_like(seen), torch.zeros_like(z)
        padded, zs = F.pad(seen, (2, 2, 2, 2), mode="replicate"), F.pad(z, (2, 2, 2, 2), mode="replicate")
        for dy in range(5):
            for dx in range(5):
                weight = ((zs[..., dy : dy + h, dx : dx + w] - z).abs() < 0.03).float()
                total, weights = total + weight * padded[..., dy : dy + h, dx : dx + w], weights + weight
        return (total / weights).flatten(2)

    def _shade(self, layout, clip, hit, d, light) -> Tensor:
        """Linear light [N, 3, R]."""
        lamp = layout["light"][clip]
        place, warm, ambient, outdoors = (lamp[:, None, a:b] for a, b in ((0, 3), (3, 6), (6, 9), (9, 10)))
        n, p = hit["normal"], hit["p"].transpose(1, 2)
        to = place - p
        far = to.norm(dim=-1, keepdim=True)
        to = to / far
        falloff = torch.where(outdoors > 0, 1.0, 2.2 / (0.6 + 0.35 * far.square()))
        front = (n * to).sum(-1, keepdim=True).clamp_min(0)
        shadow, sky = light[:, 0, :, None], light[:, 1, :, None]
        ray = F.normalize(d.transpose(1, 2), dim=-1)
        shine = (n * F.normalize(to - ray, dim=-1)).sum(-1, keepdim=True).clamp_min(0) ** 48
        edge = (1 + (n * ray).sum(-1, keepdim=True)).clamp(0, 1) ** 4
        gloss = hit["gloss"][..., None]
        got = hit["albedo"] * (
            warm * falloff * front * shadow + ambient * (0.25 + 0.75 * sky) * (0.8 - 0.2 * n[..., 1:2])
        )
        got = (
            got
            + gloss * (warm * falloff * shine * shadow * 1.5 + ambient * edge * 0.8)
            + hit["albedo"] * hit["glow"][..., None]
        )
        return got.transpose(1, 2)


class _Layouts(IterableDataset):
    def __init__(self, seed: int, num_textures: int, frames: int, size: int) -> None:
        self.seed, self.num_textures, self.frames, self.size = seed, num_textures, frames, size

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        info = get_worker_info()
        worker, count = (info.id, 0) if info else (0, 0)
        while True:
            many = []
            while len(many) < self.size:
                count += 1
                try:
                    many.append(make_layout((self.seed, worker, count), self.num_textures, self.frames))
                except (ValueError, IndexError, ZeroDivisionError, FloatingPointError):
                    continue  # one odd room must not end the training
            yield {k: np.stack([m[k] for m in many]) for k in many[0]}


def layouts(seed: int, num_textures: int, frames: int, size: int, workers: int) -> Iterator[dict[str, Tensor]]:
    """Endless batches of `size` layouts from worker processes; start it before anything touches the GPU (the workers are forks)."""
    data = _Layouts(seed, num_textures, frames, size)
    extra = {"prefetch_factor": 4, "multiprocessing_context": "fork"} if workers else {}
    return iter(DataLoader(data, batch_size=None, num_workers=workers, **extra))
