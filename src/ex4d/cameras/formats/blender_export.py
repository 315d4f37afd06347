"""Runs INSIDE Blender, no add-on: writes the scene camera's path as JSON that `ex4d` reads.

    blender scene.blend --background --python blender_export.py -- camera.json

or paste it into Blender's text editor and press Run (it then writes camera.json beside the .blend file). Parents, constraints,
drivers and camera switches by markers are followed. It imports nothing but Blender's own modules; format: formats/blender.py.
"""

import json
import os
import sys


def camera_frame(scene, depsgraph, frame, index):
    """One frame's camera, evaluated; scale is taken out of the matrix."""
    camera = scene.camera
    if camera is None or camera.type != "CAMERA":
        raise SystemExit(f"frame {frame}: the scene has no active camera")
    evaluated = camera.evaluated_get(depsgraph)
    if evaluated.data.type != "PERSP":
        raise SystemExit(
            f"frame {frame}: the camera is {evaluated.data.type}; only perspective cameras can be exported"
        )
    matrix = evaluated.matrix_world
    if matrix.determinant() <= 0:
        raise SystemExit(f"frame {frame}: a mirrored or flat parent; apply its scale first")
    rigid = matrix.normalized()
    data = evaluated.data
    return {
        "frame": frame,
        "index": index,
        "c2w": [float(rigid[row][column]) for row in range(4) for column in range(4)],
        "lens_mm": data.lens,
        "sensor_width_mm": data.sensor_width,
        "sensor_height_mm": data.sensor_height,
        "sensor_fit": data.sensor_fit,
        "shift_x": data.shift_x,
        "shift_y": data.shift_y,
        "clip_start": data.clip_start,
        "clip_end": data.clip_end,
    }


def export(bpy, out_path):
    """Every frame from frame_start to frame_end."""
    scene = bpy.context.scene
    render = scene.render
    current = scene.frame_current
    frames = []
    try:
        for index, frame in enumerate(range(scene.frame_start, scene.frame_end + 1, scene.frame_step)):
            scene.frame_set(frame)
            frames.append(camera_frame(scene, bpy.context.evaluated_depsgraph_get(), frame, index))
    finally:
        scene.frame_set(current)
    document = {
        "format": "ex4d-blender",
        "version": 1,
        "convention": "opengl_c2w, world z-up, right-handed",
        "unit_scale": scene.unit_settings.scale_length,
        "unit_system": scene.unit_settings.system,
        "fps": render.fps,
        "fps_base": render.fps_base,
        "frame_start": scene.frame_start,
        "frame_end": scene.frame_end,
        "frame_step": scene.frame_step,
        "width": round(render.resolution_x * render.resolution_percentage / 100),
        "height": round(render.resolution_y * render.resolution_percentage / 100),
        "pixel_aspect_x": render.pixel_aspect_x,
        "pixel_aspect_y": render.pixel_aspect_y,
        "type": "PERSP",
        "frames": frames,
    }
    with open(out_path, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
    return document


def main():
    """Command line inside Blender: what follows `--` is the output path."""
    import bpy

    given = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else []
    beside = os.path.join(os.path.dirname(bpy.data.filepath) or os.getcwd(), "camera.json")
    out_path = given[0] if given else beside
    document = export(bpy, out_path)
    print(f"wrote {len(document['frames'])} frames to {out_path}")


if __name__ == "__main__":
    main()
