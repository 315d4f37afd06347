"""Re-shoot an ordinary video from another camera.

Public names resolve on first use, so that `import ex4d` stays instant: torch and diffusers load when something needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "CameraPath": "ex4d.types",
    "Condition": "ex4d.types",
    "DepthClip": "ex4d.types",
    "RenderClip": "ex4d.types",
    "VideoClip": "ex4d.types",
    "WatertightMesh": "ex4d.types",
    "Ex4dError": "ex4d.errors",
    "InputError": "ex4d.errors",
    "generate": "ex4d.pipeline.line",
    "reconstruct": "ex4d.pipeline.line",
    "run": "ex4d.pipeline.run",
}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'ex4d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
