"""nvdiffrast behind the same protocol, for comparisons with the release. Optional: its licence is non-commercial."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from ex4d.errors import ResourceError
from ex4d.render.base import NEAR, Fragments
from ex4d.types import WatertightMesh

#: The release's far plane; nvdiffrast clips there, the raster law does not.
FAR = 1e3


class NvdiffrastRasterizer:
    """Draws meshes with nvdiffrast on a CUDA device; ties and coverage on edges are nvdiffrast's own.

    Args:
        antialias: Blend silhouettes as the release did; depth and face ids are not blended.

    Raises:
        ResourceError: nvdiffrast or a CUDA device is missing.
    """

    name = "nvdiffrast"

    def __init__(self, *, antialias: bool = False) -> None:
        import torch

        try:
            import nvdiffrast.torch as dr
        except ImportError as error:
            raise ResourceError(
                "nvdiffrast is not installed",
                "the nvdiffrast package (non-commercial licence)",
                "--rasterizer auto, which needs neither",
            ) from error
        if not torch.cuda.is_available():
            raise ResourceError("no CUDA device", "an NVIDIA GPU for nvdiffrast", "--rasterizer cpu")
        self._dr, self._context, self._antialias = dr, dr.RasterizeCudaContext(), antialias

    def draw(
        self,
        mesh: WatertightMesh,
        cam_from_world: Float[np.ndarray, "4 4"],
        K: Float[np.ndarray, "3 3"],
        size_hw: tuple[int, int],
    ) -> Fragments:
        """The nearest surface of every pixel within the near and far plane."""
        import torch

        h, w = size_hw
        clip_from_world = clip_from_cam(K, size_hw) @ cam_from_world
        points = torch.from_numpy(mesh.vertices).cuda().double()
        position = points @ torch.from_numpy(clip_from_world[:, :3]).cuda().T
        position = (position + torch.from_numpy(clip_from_world[:, 3]).cuda()).float()[None].contiguous()
        faces = torch.from_numpy(mesh.faces).cuda()
        color = torch.from_numpy(mesh.color).cuda()[None].contiguous()
        raster, _ = self._dr.rasterize(self._context, position, faces, (h, w))
        shaded, _ = self._dr.interpolate(torch.cat([color, position[..., 3:]], -1), raster, faces)
        rgba = shaded[..., :4].contiguous()
        if self._antialias:
            rgba = self._dr.antialias(rgba, raster, position, faces)
        face_id = raster[0, ..., 3].int().cpu().numpy() - 1
        depth = np.where(face_id >= 0, shaded[0, ..., 4].cpu().numpy(), np.float32(np.inf))
        return Fragments(face_id, rgba[0].cpu().numpy(), depth.astype(np.float32))


def clip_from_cam(
    K: Float[np.ndarray, "3 3"], size_hw: tuple[int, int], near: float = NEAR, far: float = FAR
) -> Float[np.ndarray, "4 4"]:
    """OpenCV camera points to clip space whose y = -1 is the picture's first row, as nvdiffrast returns it.

    With the principal point in the middle this equals the release's projection times `geometry.frames.GL_FROM_CV`.
    """
    h, w = size_hw
    K = K.astype(np.float64)
    out = np.zeros((4, 4))
    out[0, :3] = 2 * K[0] / w
    out[1, :3] = 2 * K[1] / h
    out[0, 2] -= 1
    out[1, 2] -= 1
    out[2, 2:] = (far + near) / (far - near), -2 * far * near / (far - near)
    out[3, 2] = 1
    return out
