"""Skin, clothes and hair: the body's faces split by the bones they hang on; cloth stands off the skin along its normals."""

from __future__ import annotations

from functools import cache

import numpy as np

from families import surfaces
from families.assets import rig
from families.body import Posed, bone
from families.shapes import ball, moved
from families.types import Textured

#: Bones by the first letters of their names.
PARTS = {
    "legs": ("upperleg", "pelvis", "root"), "shins": ("lowerleg",), "feet": ("foot", "toe"), "trunk": ("spine", "clavicle", "shoulder"),
    "upper arms": ("upperarm",), "forearms": ("lowerarm",), "hands": ("wrist", "finger", "metacarpal"), "neck": ("neck",),
    "head": ("head",), "eyes": ("eye",),
}  # fmt: skip

TONES = (
    (0.93, 0.76, 0.66),
    (0.85, 0.66, 0.53),
    (0.76, 0.56, 0.42),
    (0.6, 0.42, 0.3),
    (0.44, 0.3, 0.21),
    (0.3, 0.2, 0.15),
)

HAIR = (
    (0.08, 0.06, 0.05),
    (0.2, 0.13, 0.08),
    (0.38, 0.24, 0.12),
    (0.75, 0.58, 0.34),
    (0.55, 0.54, 0.53),
    (0.5, 0.2, 0.1),
)


@cache
def part_of_vertex() -> np.ndarray:
    """Index into PARTS [V] by the strongest bone."""
    r = rig()
    of_bone = np.array([[k for k, heads in enumerate(PARTS.values()) if n.startswith(heads)][0] for n in r.names])
    return of_bone[r.bone[np.arange(len(r.bone)), r.weight.argmax(1)]]


@cache
def _faces_of(parts: tuple[str, ...]) -> np.ndarray:
    """Faces whose corners all hang on these parts."""
    inside = np.isin(part_of_vertex(), [list(PARTS).index(p) for p in parts])
    return inside[rig().faces].all(1)


@cache
def _bare(covered: tuple[str, ...]) -> np.ndarray:
    """Faces not deep under cloth: some skin goes on under the hem."""
    hidden = np.isin(part_of_vertex(), [list(PARTS).index(p) for p in covered])
    faces = rig().faces
    for _ in range(3):
        open_ = np.zeros(len(hidden), bool)
        open_[faces[~hidden[faces].all(1)].reshape(-1)] = True
        hidden &= ~open_
    return ~hidden[faces].all(1)


@cache
def _scalp() -> np.ndarray:
    """Vertices under hair on the mean head: above the brow or behind the ears."""
    r = rig()
    head = part_of_vertex() == list(PARTS).index("head")
    eye = r.joints[0][bone("eye.L")]
    v = r.rest[0] - eye
    return head & (
        (v[:, 1] < -0.045) & (v[:, 2] > -0.02 + 0.6 * (-0.07 - v[:, 1])) | (v[:, 2] > 0.085) & (v[:, 1] < 0.07)
    )


def normals(v: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Of every vertex [T, V, 3]."""
    out = np.zeros_like(v)
    for t in range(len(v)):
        a, b, c = (v[t][faces[:, k]] for k in range(3))
        flat = np.cross(b - a, c - a)
        for i in range(3):
            out[t, :, i] = np.bincount(faces.reshape(-1), np.repeat(flat[:, i], 3), v.shape[1])
    return out / np.maximum(np.linalg.norm(out, axis=-1, keepdims=True), 1e-12)


def cut(v: np.ndarray, uv: np.ndarray, faces: np.ndarray, texture: np.ndarray, object_id: int) -> Textured:
    """Only the vertices that these faces use."""
    used, index = np.unique(faces, return_inverse=True)
    return Textured(
        np.ascontiguousarray(v[:, used], np.float32), index.reshape(-1, 3).astype(np.int32),
        np.ascontiguousarray(uv[used], np.float32), texture, object_id,
    )  # fmt: skip


def dressed(rng: np.random.Generator, body: int, posed: Posed, object_id: int) -> list[Textured]:
    """All meshes of one person, where the posed body is."""
    r = rig()
    v = posed.vertices
    n = normals(v, r.faces)
    outward = np.sign(((v[0] - v[0].mean(0)) * n[0]).sum()) or 1.0
    n = n * outward
    rest = r.rest[body]
    skin = _skin(rng)
    long_sleeves, shorts = rng.random() < 0.5, rng.random() < 0.25
    top = ("trunk", "upper arms", "forearms") if long_sleeves else ("trunk", "upper arms")
    bottom = ("legs",) if shorts else ("legs", "shins")
    shoes = ("feet",)
    garments = [
        (bottom, rng.uniform(0.006, 0.022)),
        (top, rng.uniform(0.008, 0.035)),
        (shoes, rng.uniform(0.006, 0.014)),
    ]
    bare = _bare(tuple(p for parts, _ in garments for p in parts))
    eyes = _faces_of(("eyes",))
    out = [cut(v, r.uv, r.faces[bare & ~eyes], skin, object_id)]
    out.append(cut(v, r.uv, r.faces[eyes], surfaces.plain(np.array([0.25, 0.2, 0.18])), object_id))
    overalls = surfaces.surface(rng, 0.75) if rng.random() < 0.15 else None
    for parts, off in garments:
        folds = 1 + 0.5 * np.sin(rest @ rng.normal(0, 45, 3) + 3 * np.sin(rest @ rng.normal(0, 14, 3)))
        cloth = overalls if overalls is not None and parts != shoes else surfaces.surface(rng, 0.75)
        inside = np.isin(part_of_vertex(), [list(PARTS).index(p) for p in parts])
        faces = r.faces[inside[r.faces].any(1)]
        lifted = v + (n * (off * folds)[None, :, None]).astype(np.float32)
        out.append(cut(lifted, r.uv * rng.uniform(2, 9), faces, cloth, object_id))
    if rng.random() < 0.92:
        out += _hair(rng, body, posed, n, object_id)
    return out


def _skin(rng: np.random.Generator) -> np.ndarray:
    from ex4d.scenes.textures import fbm

    tone = np.array(TONES[rng.integers(len(TONES))]) * rng.uniform(0.9, 1.08)
    spots = fbm(rng, 1.1, 1.0, 64)[..., None]
    return surfaces.to_uint8(tone * (0.93 + 0.12 * spots) + (spots - 0.5) * [0.03, -0.01, -0.01])


def _hair(rng: np.random.Generator, body: int, posed: Posed, n: np.ndarray, object_id: int) -> list[Textured]:
    r, color = rig(), np.array(HAIR[rng.integers(len(HAIR))]) * rng.uniform(0.7, 1.2)
    from ex4d.scenes.textures import fbm

    strands = fbm(rng, 0.8, 8.0, 64)[..., None]
    texture = surfaces.to_uint8(color * (0.6 + 0.8 * strands))
    thick = rng.uniform(0.008, 0.05) * (1 + 0.4 * np.sin(r.rest[body] @ rng.normal(0, 60, 3)))
    on = _scalp()
    lifted = posed.vertices + (n * np.where(on, thick, -0.004)[None, :, None]).astype(np.float32)
    out = [cut(lifted, r.uv * 4, r.faces[on[r.faces].any(1)], texture, object_id)]
    if rng.random() < 0.4:  # long hair or a bun behind the head
        k, long_ = bone("head"), rng.uniform(0.06, 0.26)
        mesh = ball(np.array([rng.uniform(0.05, 0.1), long_, rng.uniform(0.035, 0.07)]), 8)
        eye = r.joints[body][bone("eye.L")] * [0, 1, 1]
        at = eye - r.joints[body][k] + [0, long_ - rng.uniform(0.02, 0.1), 0.16]
        G = posed.orientation[:, k]
        mesh = moved(mesh, G, posed.joint[:, k] + np.einsum("tij,j->ti", G, at))
        uv = (mesh.uv * 4).astype(np.float32)
        out.append(Textured(mesh.vertices.astype(np.float32), mesh.faces, uv, texture, object_id))
    return out
