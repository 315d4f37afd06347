"""Meshes out and in: binary PLY and binary glTF (GLB), with vertex colours; the order of vertices and faces is kept.

Vertices stay in the mesh's own frame (OpenCV axes). A GLB says so with a node that turns the scene into glTF's y-up axes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from ex4d.errors import InputError
from ex4d.system.atomic import written_whole
from ex4d.types import WatertightMesh

_PLY_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgba", "u1", 4)])
_PLY_FACE = np.dtype([("count", "u1"), ("index", "<i4", 3), ("visible", "u1")])
_PLY_HEADER = """ply
format binary_little_endian 1.0
comment ex4d: camera axes x right, y down, z forward
element vertex {vertices}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
property uchar alpha
element face {faces}
property list uchar int vertex_indices
property uchar visible
end_header
"""
# Numbers of the glTF 2.0 specification, sections 3.6.2 and 4.
_GLB_MAGIC, _GLB_JSON, _GLB_BIN = 0x46546C67, 0x4E4F534A, 0x004E4942
_FLOAT, _UNSIGNED_INT, _UNSIGNED_BYTE = 5126, 5125, 5121
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER, _TRIANGLES = 34962, 34963, 4
#: glTF's axes (y up, z backward) from OpenCV's, column by column.
_GLTF_FROM_CV = [1, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 0, 0, 0, 0, 1]


def write_mesh(path: Path | str, mesh: WatertightMesh) -> None:
    """Write .ply or .glb by the suffix."""
    writer = {".ply": write_ply, ".glb": write_glb}.get(Path(path).suffix.lower())
    if writer is None:
        raise InputError(f"{path} has suffix {Path(path).suffix!r}", ".ply or .glb", "--mesh-format ply")
    writer(path, mesh)


def read_mesh(path: Path | str) -> WatertightMesh:
    """Read back what `write_mesh` wrote."""
    reader = {".ply": read_ply, ".glb": read_glb}.get(Path(path).suffix.lower())
    if reader is None:
        raise InputError(f"{path} has suffix {Path(path).suffix!r}", ".ply or .glb")
    try:
        return reader(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})", "a mesh file") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise InputError(f"{path} is not a mesh that ex4d wrote ({error})", "a .ply or .glb of `ex4d mesh`") from error


def write_ply(path: Path | str, mesh: WatertightMesh) -> None:
    """Binary little-endian PLY: float positions, 8-bit RGBA, and per face `visible` (1: seen by the source camera)."""
    vertices = np.empty(len(mesh.vertices), _PLY_VERTEX)
    vertices["xyz"], vertices["rgba"] = mesh.vertices, _rgba8(mesh)
    faces = np.empty(len(mesh.faces), _PLY_FACE)
    faces["count"], faces["index"], faces["visible"] = 3, mesh.faces, mesh.visible
    with written_whole(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write(_PLY_HEADER.format(vertices=len(vertices), faces=len(faces)).encode())
        stream.write(vertices.tobytes())
        stream.write(faces.tobytes())


def read_ply(path: Path | str) -> WatertightMesh:
    """A PLY with the properties that `write_ply` writes."""
    data = Path(path).read_bytes()
    end = data.index(b"end_header\n") + len(b"end_header\n")
    header = data[:end].decode("ascii")
    counts = [int(line.split()[2]) for line in header.splitlines() if line.startswith("element")]
    if len(counts) != 2 or header != _PLY_HEADER.format(vertices=counts[0], faces=counts[1]):
        raise ValueError("its properties are others")
    vertices = np.frombuffer(data, _PLY_VERTEX, counts[0], end)
    faces = np.frombuffer(data, _PLY_FACE, counts[1], end + vertices.nbytes)
    return WatertightMesh(
        np.ascontiguousarray(vertices["xyz"]),
        np.ascontiguousarray(faces["index"]),
        vertices["rgba"].astype(np.float32),
        faces["visible"] > 0,
    )


def write_glb(path: Path | str, mesh: WatertightMesh) -> None:
    """GLB 2.0: one vertex buffer, unlit double-sided materials; visible and hidden faces are two primitives.

    Faces keep their order within each of the two. Hidden faces are drawn half transparent, so that viewers show both.
    """
    visible, hidden = mesh.faces[mesh.visible], mesh.faces[~mesh.visible]
    parts: list[tuple[np.ndarray, int, int, str]] = [
        (mesh.vertices.astype("<f4"), _FLOAT, _ARRAY_BUFFER, "VEC3"),
        (_rgba8(mesh), _UNSIGNED_BYTE, _ARRAY_BUFFER, "VEC4"),
        *(
            (f.reshape(-1).astype("<u4"), _UNSIGNED_INT, _ELEMENT_ARRAY_BUFFER, "SCALAR")
            for f in (visible, hidden)
            if len(f)
        ),
    ]
    views, accessors, offset = [], [], 0
    for array, component, target, kind in parts:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes, "target": target})
        accessors.append({"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind})
        offset += array.nbytes
    accessors[0] |= {"min": mesh.vertices.min(axis=0).tolist(), "max": mesh.vertices.max(axis=0).tolist()}
    accessors[1]["normalized"] = True
    materials = [
        _material("visible", 1.0) if len(visible) else None,
        _material("hidden", 0.5) if len(hidden) else None,
    ]
    used = [material for material in materials if material]
    document = {
        "asset": {"version": "2.0", "generator": "ex4d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "matrix": _GLTF_FROM_CV, "name": "camera axes x right, y down, z forward"}],
        "meshes": [
            {
                "primitives": [
                    {"attributes": {"POSITION": 0, "COLOR_0": 1}, "indices": 2 + i, "material": i, "mode": _TRIANGLES}
                    for i in range(len(used))
                ]
            }
        ],
        "materials": used,
        "extensionsUsed": ["KHR_materials_unlit"],
        "buffers": [{"byteLength": offset}],
        "bufferViews": views,
        "accessors": accessors,
    }
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    with written_whole(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write(struct.pack("<3I", _GLB_MAGIC, 2, 12 + 8 + len(text) + 8 + offset))
        stream.write(struct.pack("<2I", len(text), _GLB_JSON) + text)
        stream.write(struct.pack("<2I", offset, _GLB_BIN))
        for array, *_ in parts:
            stream.write(array.tobytes())


def read_glb(path: Path | str) -> WatertightMesh:
    """A GLB that `write_glb` wrote: visible faces come first."""
    data = Path(path).read_bytes()
    magic, version, total, length, kind = struct.unpack_from("<5I", data)
    if (magic, version, kind, total) != (_GLB_MAGIC, 2, _GLB_JSON, len(data)):
        raise ValueError("no whole GLB 2.0")
    document = json.loads(data[20 : 20 + length])
    start = 20 + length + 8

    def array(index: int, dtype: str) -> np.ndarray:
        view = document["bufferViews"][document["accessors"][index]["bufferView"]]
        return np.frombuffer(data, dtype, view["byteLength"] // np.dtype(dtype).itemsize, start + view["byteOffset"])

    primitives = document["meshes"][0]["primitives"]
    names = [document["materials"][primitive["material"]]["name"] for primitive in primitives]
    faces = [array(primitive["indices"], "<u4").reshape(-1, 3) for primitive in primitives]
    visible = [np.full(len(part), name == "visible") for part, name in zip(faces, names, strict=True)]
    return WatertightMesh(
        array(0, "<f4").reshape(-1, 3).copy(),
        np.concatenate(faces).astype(np.int32),
        array(1, "u1").reshape(-1, 4).astype(np.float32),
        np.concatenate(visible),
    )


def _rgba8(mesh: WatertightMesh) -> np.ndarray:
    return np.clip(np.round(mesh.color), 0, 255).astype(np.uint8)


def _material(name: str, alpha: float) -> dict[str, object]:
    return {
        "name": name,
        "doubleSided": True,
        "alphaMode": "OPAQUE" if alpha == 1 else "BLEND",
        "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, alpha], "metallicFactor": 0},
        "extensions": {"KHR_materials_unlit": {}},
    }
