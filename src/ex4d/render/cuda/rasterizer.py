"""The GPU rasteriser: the raster law in Triton, whole clips at a time, without mesh buffers for depth maps.

How it works and what limits it: docs/rasteriser.md. Triton is imported when something is first drawn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32, UInt8

from ex4d.errors import InputError, ResourceError
from ex4d.mesh.rule import DepthRange, MeshRule
from ex4d.render.base import Fragments, SeenFrame
from ex4d.types import WatertightMesh

if TYPE_CHECKING:
    import torch

    from ex4d.render.cuda.job import GridJob, GridOutput, Tuning
    from ex4d.render.cuda.launch import Launcher

#: Faces of a frame, splats included, must have ids below 2^31.
MAX_PIXELS = 1 << 28


def available() -> tuple[bool, str]:
    """Whether this machine can run the kernels, and if not, why."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False, "Triton is not installed"
    if interpreted():
        return True, ""
    import torch

    if not torch.cuda.is_available():
        return False, "no CUDA device"
    if torch.cuda.get_device_capability() < (7, 0):
        return False, f"{torch.cuda.get_device_name()} is older than compute capability 7.0"
    return True, ""


def interpreted() -> bool:
    """Whether Triton's interpreter stands in for a GPU (TRITON_INTERPRET=1): for tests, thousands of times slower."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


@dataclass(frozen=True)
class GridRender:
    """What a clip of depth maps looks like from its new cameras, on the device. Fields that were not asked for are None.

    Attributes:
        mask: True where the source camera saw this surface (at least half of the samples).
        color: RGB, 0 where `mask` is False.
        depth: z in the new camera, +inf where nothing was hit.
        coverage: 0..255 share of the samples that were seen; with supersampling only.
        face_id: Face of the built mesh (`mesh.watertight.build_mesh`) in every sample, -1 where there is none.
    """

    mask: Bool[torch.Tensor, "time height width"]
    color: UInt8[torch.Tensor, "time height width 3"] | None = None
    depth: Float32[torch.Tensor, "time height width"] | None = None
    coverage: UInt8[torch.Tensor, "time height width"] | None = None
    face_id: Int32[torch.Tensor, "time samples_y samples_x"] | None = None


class CudaRasterizer:
    """Draws meshes and depth maps by the raster law of `render.base`, the same bytes every run.

    Args:
        device: A CUDA device; None is the current one.
        tuning: Block sizes and thresholds; None for the defaults.

    Raises:
        ResourceError: No Triton or no GPU.
    """

    name = "cuda"

    def __init__(self, device: str | torch.device | None = None, tuning: Tuning | None = None) -> None:
        usable, why = available()
        if not usable:
            fix = "--rasterizer cpu" if "Triton" not in why else "pip install triton, or --rasterizer cpu"
            raise ResourceError(f"the cuda rasteriser cannot run: {why}", "a CUDA GPU and Triton", fix)
        self._device, self._tuning = device, tuning
        self._launchers: dict[torch.device, Launcher] = {}

    def draw(
        self,
        mesh: WatertightMesh,
        cam_from_world: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> Fragments:
        """The nearest surface of every pixel, of any triangle mesh."""

        from ex4d.render.cuda.job import camera_table

        check_size(size_hw)
        if len(mesh.faces) == 0:
            empty = np.full(size_hw, np.inf, np.float32)
            return Fragments(np.full(size_hw, -1, np.int32), np.zeros((*size_hw, 4), np.float32), empty)
        device = self.device
        with on_device(device):
            camera = upload(camera_table(K[None], cam_from_world[None], 1)[0], device)
            arrays = (mesh.vertices, mesh.faces, (~mesh.visible).view(np.uint8), mesh.color)
            points, faces, hidden, colors = (upload(x, device) for x in arrays)
            face, color, depth = self._launcher(device).draw_soup(points, faces, hidden, colors, camera, size_hw)
        return Fragments(face.cpu().numpy(), color.cpu().numpy(), depth.cpu().numpy())

    def draw_depth(
        self,
        depth: Float32[np.ndarray, "h w"],
        color: UInt8[np.ndarray, "h w 3"],
        source_K: Float32[np.ndarray, "3 3"],
        rule: MeshRule,
        clip: DepthRange,
        cam_from_source: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> SeenFrame:
        """The watertight mesh of one source frame, seen from another camera."""
        frames = self.draw_depths(
            depth[None], color[None], source_K[None], rule, clip, cam_from_source[None], K[None], size_hw
        )
        return SeenFrame(*next(frames))

    def draw_depths(
        self,
        depth: Float32[np.ndarray, "t h w"],
        color: UInt8[np.ndarray, "t h w 3"],
        source_K: Float32[np.ndarray, "t 3 3"],
        rule: MeshRule,
        clip: DepthRange,
        cam_from_source: Float[np.ndarray, "t 4 4"],
        K: Float[np.ndarray, "t 3 3"],
        size_hw: tuple[int, int],
        supersample: int = 1,
    ) -> Iterator[tuple[np.ndarray, ...]]:
        """Many source frames in one go: (colour, mask, depth) of each and, with several samples a pixel, its coverage."""
        device = self.device
        out = self.render_grid(
            upload(depth, device), upload(color, device), source_K, cam_from_source, K, size_hw,
            rule=rule, clip=clip, supersample=supersample,
        )  # fmt: skip
        fields = (out.color, out.mask, out.depth, out.coverage)
        yield from zip(*(x.cpu().numpy() for x in fields if x is not None), strict=True)

    def render_grid(
        self,
        depth: Float32[torch.Tensor, "t h w"],
        color: UInt8[torch.Tensor, "t h w 3"] | None,
        source_K: Float[np.ndarray, "*t 3 3"],
        cam_from_source: Float[np.ndarray, "*t 4 4"],
        K: Float[np.ndarray, "*t 3 3"],
        size_hw: tuple[int, int],
        *,
        rule: MeshRule,
        clip: DepthRange,
        supersample: int = 1,
        want_depth: bool = True,
        want_faces: bool = False,
    ) -> GridRender:
        """Depth maps on the device to pictures on the device; nothing but the cameras passes through the host.

        Args:
            depth: Along z, finite and > 0 (not checked here: that would wait for the device).
            color: RGB of the same pixels; None renders masks (and depth) only.
            source_K: Intrinsics of the depth maps, one for all frames or one a frame; a NumPy array.
            cam_from_source: Source camera to new camera, one for all frames or one a frame; a NumPy array.
            K: Intrinsics of the new cameras, in pixels of `size_hw`.
            size_hw: Output size.
            rule: How the mesh is made and seen.
            clip: Depth range of the whole clip.
            supersample: Samples a pixel along each axis; above 1 the result has `coverage`.
            want_depth: Whether to return depth.
            want_faces: Whether to return face ids.

        Raises:
            InputError: Sizes that do not fit, or a frame too large.
        """
        import torch

        from ex4d.render.cuda.job import GridOutput

        with on_device(depth.device):
            job = self._job(depth, color, (source_K, cam_from_source, K), size_hw, rule, clip, supersample)
            count, height, width = depth.shape
            (h, w), (sample_h, sample_w), (grid_h, grid_w) = job.size_hw, job.sample_hw, job.grid_hw

            def empty(shape: tuple[int, ...], dtype: torch.dtype, wanted: bool = True) -> torch.Tensor | None:
                return torch.empty(shape, dtype=dtype, device=depth.device) if wanted else None

            out = GridOutput(
                mask=torch.empty((count, h, w), dtype=torch.uint8, device=depth.device),
                color=empty((count, h, w, 3), torch.uint8, color is not None),
                depth=empty((count, h, w), torch.float32, want_depth),
                coverage=empty((count, h, w), torch.uint8, supersample > 1),
                face=empty((count, sample_h, sample_w), torch.int32, want_faces),
                unseen=empty((count, height, width), torch.uint8, want_faces and rule.ring),
                hidden=empty((count, (grid_h - 1) * (grid_w - 1)), torch.uint8, want_faces),
            )
            self._launcher(depth.device).render(job, out)
            face = None if out.face is None else mesh_face_ids(out, job)
        return GridRender(out.mask.view(torch.bool), out.color, out.depth, out.coverage, face)

    def _job(self, depth, color, cameras, size_hw, rule: MeshRule, clip: DepthRange, supersample: int) -> GridJob:

        from ex4d.render.cuda.job import GridJob, camera_table, source_table

        count, height, width = depth.shape
        if rule.ring == rule.per_vertex:
            raise ValueError("rules with a ring mark faces, rules without one mark vertices")
        if color is not None and tuple(color.shape) != (count, height, width, 3):
            raise InputError(
                f"colour {tuple(color.shape)} for depth {tuple(depth.shape)}", "one size", "resize one of them"
            )
        check_size((height, width))
        check_size((size_hw[0] * supersample, size_hw[1] * supersample))
        source_K, cam_from_source, K = (np.broadcast_to(np.asarray(x), (count, *np.shape(x)[-2:])) for x in cameras)
        source, caps = source_table(source_K, (height, width), rule, clip)
        camera = camera_table(K, cam_from_source, supersample)
        limits = np.array([rule.far_plane, rule.alpha_threshold], np.float32)
        source, camera, caps, limits = (upload(x, depth.device) for x in (source, camera, caps, limits))
        return GridJob(
            depth.contiguous(), None if color is None else color.contiguous(), source, camera, caps, limits,
            rule, tuple(size_hw), supersample,
        )  # fmt: skip

    @property
    def device(self) -> torch.device:
        """Where host arrays are drawn."""
        import torch

        if self._device is not None:
            return torch.device(self._device)
        return torch.device("cpu") if interpreted() else torch.device("cuda", torch.cuda.current_device())

    def _launcher(self, device: torch.device) -> Launcher:
        from ex4d.render.cuda.job import Tuning
        from ex4d.render.cuda.launch import Launcher

        if device not in self._launchers:
            self._launchers[device] = Launcher(device, self._tuning or Tuning())
        return self._launchers[device]


def visibility_masks(
    depth: Float32[torch.Tensor, "t h w"],
    source_K: Float[np.ndarray, "*t 3 3"],
    cam_from_source: Float[np.ndarray, "*t 4 4"],
    K: Float[np.ndarray, "*t 3 3"],
    size_hw: tuple[int, int],
    *,
    rule: MeshRule,
    clip: DepthRange,
    rasterizer: CudaRasterizer | None = None,
) -> Bool[torch.Tensor, "t height width"]:
    """What stays visible from other cameras, without colour: the transplanted rendering masks of training."""
    rasterizer = rasterizer or CudaRasterizer(depth.device)
    return rasterizer.render_grid(
        depth, None, source_K, cam_from_source, K, size_hw, rule=rule, clip=clip, want_depth=False
    ).mask


def mesh_face_ids(out: GridOutput, job: GridJob) -> torch.Tensor:
    """Face ids of the kernels, which count two splats for every pixel, as the built mesh numbers them."""
    import torch

    assert out.face is not None and out.hidden is not None
    face = out.face
    for t, cells in enumerate(out.hidden):
        present = torch.cat([(cells & 1) == 0, (cells >> 1) == 0, job.caps[t] != 0])
        if job.rule.keep_hidden:
            present[:] = True
        if out.unseen is not None:
            present = torch.cat([present, out.unseen[t].reshape(-1).repeat_interleave(2) != 0])
        number = (torch.cumsum(present, 0) - 1).to(torch.int32)
        face[t] = torch.where(face[t] < 0, -1, number[face[t].clamp(min=0).long()])
    return face


def upload(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """A host array on the device, without waiting for it."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def check_size(size_hw: tuple[int, int]) -> None:
    """Raise InputError where face ids or pixel positions would not fit their bits."""
    h, w = size_hw
    if not (0 < h * w <= MAX_PIXELS and max(h, w) <= 1 << 15 and min(h, w) > 0):
        raise InputError(f"a picture of {w}x{h}", "1 to 32,768 pixels a side, at most 2^28 in all", "--size smaller")


def on_device(device: torch.device):
    """Triton launches on the current device: make it this one."""
    import contextlib

    import torch

    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
