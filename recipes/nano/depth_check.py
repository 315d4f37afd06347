"""Does everything that the depth training stands on work on this device? Asked in its first seconds, before anything is spent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from depth_data import FARTHEST, NEAREST, changed, cropped
from depth_loss import depth_loss
from depth_rooms import NO_HIT, RoomRenderer, TextureBank, trace
from torch import Tensor

if TYPE_CHECKING:
    from ex4d.models.depth.nano import ClipDepthNetwork

#: How many rays the kernel may see differently (edges, rounding), how far t may be off, relative, and how many may hit the other one of
#: two surfaces in the same place.
ODD_RAYS, OFF, OTHER = 0.01, 1e-3, 0.05


class CheckFailed(RuntimeError):
    """The device computes something else than it should."""


def _need(good: bool | Tensor, what: str) -> None:
    if not bool(good):
        raise CheckFailed(f"self-check failed: {what}")


def check_trace(layout: dict[str, Tensor], rays_per_frame: int = 2000, **kernel: bool) -> float:
    """Compare the kernel with the plain loop on random rays from the cameras of `layout`; share of rays that differ.

    Off the GPU both are the plain loop. `kernel`: options of `trace` for the first of the two.
    """
    A, frames = layout["to_local"], layout["eye"].shape[1]
    shift = -(A[:, None] * layout["center"][..., None, :]).sum(-1)
    prims = torch.cat([A.flatten(2)[:, None].expand(-1, frames, -1, -1), shift], -1).flatten(0, 1).contiguous()
    count = layout["count"].int().repeat_interleave(frames, 0).contiguous()
    g = torch.Generator().manual_seed(0)
    d = torch.randn(len(prims), 3, rays_per_frame, generator=g).to(A.device)
    eye = layout["eye"].flatten(0, 1)[:, :, None].expand_as(d)
    rays = torch.cat([eye, d], 1).contiguous()
    (t, index), (t2, index2) = trace(rays, prims, count, **kernel), trace(rays, prims, count, plain=True)
    _need(torch.isfinite(t).all() and (t > 0).all(), "a ray's length is not finite")
    _need((index >= -1).all() and (index < A.shape[1]).all(), "a ray hit what is not there")
    _need(((index >= 0) == (t < NO_HIT)).all(), "a ray's length and what it hit disagree")
    _need((index >= 0).float().mean() > 0.05, "rays hit next to nothing")
    share = float(((t - t2).abs() > OFF * t2.abs()).float().mean())
    _need(share <= ODD_RAYS, f"kernel and plain loop differ in {share:.1%} of the rays")
    other = float((index != index2).float().mean())
    _need(other <= OTHER, f"kernel and plain loop differ in what {other:.1%} of the rays hit")
    return share


def check_rooms(layout: dict[str, Tensor], size_hw: tuple[int, int] = (64, 96)) -> tuple[Tensor, Tensor]:
    """Small pictures of `layout` must have colours and depths that make sense; returns them."""
    device = str(layout["eye"].device)
    color, depth = RoomRenderer(TextureBank(torch.rand(4, 256, 256, 3), device), size_hw)(layout, samples=1)
    _need((depth > 0).float().mean() > 0.999, "depths of rooms are not finite or not positive")
    _need(depth.float().max() <= 6e4, "depths of rooms are out of bounds")
    flat = depth.float().clamp(NEAREST, FARTHEST).log().flatten(1).std(dim=1)
    _need((flat > 0.01).any(), "rooms are flat")
    _need((color.float().flatten(1).std(dim=1) > 2).any(), "pictures of rooms are empty")
    return color, depth


def check_learning(model: ClipDepthNetwork, color: Tensor, depth: Tensor) -> float:
    """One augmented batch forwards and backwards, in the training's precision: everything finite, near float32. Leaves no gradient.

    Returns:
        Mean difference of the log disparity in the training's precision and in float32.
    """
    video, z = cropped(color, depth, (64, 64))
    video = changed(video).transpose(1, 2) * 2 - 1
    _need(torch.isfinite(video).all() and torch.isfinite(z).all(), "augmented clips are not finite")
    with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
        guess = model.log_disparity(video)
    _need(guess.dtype == torch.float32 and torch.isfinite(guess).all(), "the network's output is not finite float32")
    loss, _ = depth_loss(guess, z)
    loss.backward()
    _need(torch.isfinite(loss), "the loss is not finite")
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    _need(bool(grads) and all(bool(torch.isfinite(g).all()) for g in grads), "a gradient is not finite")
    model.zero_grad(set_to_none=True)
    with torch.no_grad():
        off = float((model.log_disparity(video) - guess).abs().mean())
    _need(off < 0.1, f"half precision is off by {off:.2f} in log disparity")
    return off


def self_check(layout: dict[str, Tensor], model: ClipDepthNetwork, device: str) -> dict[str, float]:
    """All checks with a batch of layouts, about three seconds on a GPU; raises `CheckFailed`. Returns what was measured."""
    begin = time.time()
    moved = {k: torch.as_tensor(v)[:4].to(device) for k, v in layout.items()}
    with torch.no_grad():
        odd = check_trace(moved)
    off = check_learning(model, *check_rooms(moved))
    return {"odd_rays": round(odd, 5), "half_off": round(off, 4), "seconds": round(time.time() - begin, 1)}
