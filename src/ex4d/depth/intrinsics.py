"""Where K comes from: the user, a file, the depth model, the video's metadata, or a stated default that scales with size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32

from ex4d.errors import InputError
from ex4d.geometry.pinhole import focal_px, intrinsics

#: The reference's focal length at any resolution (recon.py); used only by its preset.
REFERENCE_FOCAL_PX = 500.0

#: Default focal length over the picture's diagonal: 500 px at 512x512, which is a 30 mm lens on 36x24 mm film.
DEFAULT_FOCAL_OVER_DIAGONAL = 500.0 / math.hypot(512, 512)

#: Diagonal of 36x24 mm film, to which "35 mm equivalent" focal lengths refer.
FILM_DIAGONAL_MM = math.hypot(36, 24)

#: Focal lengths shorter or longer than these shares of the diagonal (fields of view of 157 and 5.7 degrees) are mistakes.
FOCAL_OVER_DIAGONAL_LIMITS = (0.1, 10.0)


@dataclass(frozen=True)
class Intrinsics:
    """K [3, 3] or [time, 3, 3] in pixels of the clip, and where it was found (for help, manifests and warnings)."""

    K: Float32[np.ndarray, "*time 3 3"]
    origin: str

    def for_frames(self, start: int, stop: int) -> Float32[np.ndarray, "time 3 3"]:
        """K of frames start..stop-1; one K serves all frames."""
        if self.K.ndim == 2:
            return np.broadcast_to(self.K, (stop - start, 3, 3)).copy()
        if stop > len(self.K):
            raise InputError(
                f"intrinsics of {len(self.K)} frames for a clip of at least {stop}",
                "one K, or one per frame",
                "--fov DEG",
            )
        return self.K[start:stop].copy()


def default_focal(size_hw: tuple[int, int]) -> float:
    """Focal length in pixels when nothing is known; scales with the picture."""
    return DEFAULT_FOCAL_OVER_DIAGONAL * math.hypot(*size_hw)


def choose_intrinsics(
    size_hw: tuple[int, int],
    *,
    K: Float[np.ndarray, "*time 3 3"] | None = None,
    K_origin: str = "given",
    fov_deg: float | None = None,
    model_K: Float[np.ndarray, "*time 3 3"] | None = None,
    metadata: Mapping[str, object] | None = None,
    reference: bool = False,
) -> Intrinsics:
    """The first of: K given (a file or the user), the field of view given by the user, the depth model's, metadata, the default.

    Args:
        size_hw: Picture (height, width) that K refers to.
        K: Intrinsics in pixels of `size_hw`.
        fov_deg: Horizontal field of view in degrees. What the user says beats what a model guesses.
        model_K: What the depth model or depth file says, in pixels of `size_hw`.
        metadata: EXIF or container tags as name -> value; see `focal_from_metadata`.
        reference: 500 px whatever the size.

    Raises:
        InputError: A focal length or field of view that no lens has.
    """
    if reference:
        return Intrinsics(intrinsics(size_hw, REFERENCE_FOCAL_PX), "reference preset: 500 px")
    if K is not None:
        return Intrinsics(check_K(np.asarray(K, np.float32), size_hw, K_origin), K_origin)
    if fov_deg is not None:
        if not 1 <= fov_deg < 179:
            raise InputError(f"--fov {fov_deg:g}", "a horizontal field of view of 1 to 178 degrees", "--fov 60")
        focal = focal_px(size_hw[1], math.radians(fov_deg))
        return Intrinsics(intrinsics(size_hw, focal), f"field of view {fov_deg:g} degrees")
    if model_K is not None:
        return Intrinsics(check_K(np.asarray(model_K, np.float32), size_hw, "depth model"), "depth model")
    found = focal_from_metadata(metadata or {}, size_hw)
    if found is not None:
        return Intrinsics(intrinsics(size_hw, found[0]), f"metadata: {found[1]}")
    focal = default_focal(size_hw)
    fov = math.degrees(2 * math.atan2(size_hw[1], 2 * focal))
    return Intrinsics(
        intrinsics(size_hw, focal), f"default: {focal:.0f} px ({fov:.0f} degrees across); --fov DEG sets it"
    )


def check_K(
    K: Float32[np.ndarray, "*time 3 3"], size_hw: tuple[int, int], origin: str
) -> Float32[np.ndarray, "*time 3 3"]:
    """K itself; InputError when it is not that of a pinhole looking at a picture of this size."""
    if K.shape[-2:] != (3, 3) or K.ndim not in (2, 3):
        raise InputError(f"intrinsics ({origin}) of shape {K.shape}", "K [3, 3] or [time, 3, 3]", "--fov DEG instead")
    low, high = (share * math.hypot(*size_hw) for share in FOCAL_OVER_DIAGONAL_LIMITS)
    focals = np.stack([K[..., 0, 0], K[..., 1, 1]])
    wrong = ~np.isfinite(K).all() or (focals < low).any() or (focals > high).any() or (K[..., 2, 2] != 1).any()
    if wrong:
        raise InputError(
            f"intrinsics ({origin}) with focal length {focals.flat[0]:g} for {size_hw[1]}x{size_hw[0]} pixels",
            f"{low:.0f} to {high:.0f} pixels and a last row 0 0 1",
            "K in pixels of the video (not normalised, not of another size)",
        )
    return K


def focal_from_metadata(metadata: Mapping[str, object], size_hw: tuple[int, int]) -> tuple[float, str] | None:
    """(focal length in pixels, what it was read from), or None.

    Understands, under any prefix and case: EXIF `FocalLengthIn35mmFilm` / QuickTime `camera.focal_length.35mm_equivalent`
    (millimetres against the 43.27 mm film diagonal), EXIF `FocalLength` with `FocalPlaneXResolution` and its unit, and a
    horizontal `fov` in degrees. Values may be numbers, "26", or "26/1". Values no lens has are ignored.
    """
    tags = {"".join(c for c in str(name).lower() if c.isalnum()): value for name, value in metadata.items()}
    diagonal = math.hypot(*size_hw)
    candidates: list[tuple[float, str]] = []
    for name, raw in tags.items():
        value = _number(raw)
        if value is None:
            continue
        if name.endswith(("focallengthin35mmfilm", "focallengthin35mmformat", "35mmequivalent")):
            candidates.append((value / FILM_DIAGONAL_MM * diagonal, f"{value:g} mm (35 mm equivalent)"))
        elif name.endswith(("fieldofview", "fovdeg", "horizontalfov", "hfov")):
            if 1 <= value < 179:
                candidates.append((focal_px(size_hw[1], math.radians(value)), f"field of view {value:g} degrees"))
        elif name.endswith("focallength") and "focalplanexresolution" in tags:
            per_unit = _number(tags["focalplanexresolution"]) or 0.0
            mm_per_unit = {2: 25.4, 3: 10.0, 4: 1.0}.get(
                int(_number(tags.get("focalplaneresolutionunit", 2)) or 2), 25.4
            )
            width = _number(tags.get("pixelxdimension", tags.get("exifimagewidth", size_hw[1]))) or size_hw[1]
            candidates.append((value * per_unit / mm_per_unit * size_hw[1] / width, f"{value:g} mm lens"))
    low, high = (share * diagonal for share in FOCAL_OVER_DIAGONAL_LIMITS)
    return next((found for found in candidates if low <= found[0] <= high), None)


def _number(value: object) -> float | None:
    try:
        top, _, bottom = str(value).strip().partition("/")
        number = float(top.split()[0]) / (float(bottom) if bottom else 1.0)
    except (ValueError, IndexError, ZeroDivisionError):
        return None
    return number if math.isfinite(number) else None
