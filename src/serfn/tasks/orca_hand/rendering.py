"""Offscreen rendering that needs no display: EGL first, then OSMesa, unless `MUJOCO_GL` says otherwise."""

# pyright: reportAttributeAccessIssue=false
# (the MuJoCo bindings come without type stubs)

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import mujoco
import numpy as np

from serfn.core.errors import SerfnError

_HEADLESS = ("egl", "osmesa")
_SHADOW_SIZE = 2048


class RenderingUnavailableError(SerfnError):
    """No OpenGL implementation that works without a display was found."""


class OffscreenRenderer:
    """Renders states of one model as RGB frames."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int, camera: dict[str, Any]) -> None:
        """Open a context for frames of the given size.

        Args:
            model: the scene with its visual geometry.
            height: frame height in pixels.
            width: frame width in pixels.
            camera: attributes of `mujoco.MjvCamera`: lookat (m), distance (m), azimuth and elevation
                (degrees).

        Raises:
            RenderingUnavailableError: no OpenGL implementation works here.
        """
        self._model, self._data = model, mujoco.MjData(model)
        model.vis.global_.offwidth, model.vis.global_.offheight = width, height
        # MuJoCo's default of 8192 costs a software renderer a second per frame, and no eye sees it here.
        model.vis.quality.shadowsize = _SHADOW_SIZE
        self._gl, self._context = _open_contexts(model, width, height)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        self._option = mujoco.MjvOption()
        self._camera = mujoco.MjvCamera()
        for name, value in camera.items():
            setattr(self._camera, name, value)
        self._rectangle = mujoco.MjrRect(0, 0, width, height)

    def render(self, state: mujoco.MjData) -> np.ndarray:
        """Return the frame [height, width, 3] uint8 of a state: its joints and what a task has placed."""
        self._gl.make_current()
        self._data.qpos[:] = state.qpos
        self._data.mocap_pos[:] = state.mocap_pos
        self._data.mocap_quat[:] = state.mocap_quat
        mujoco.mj_forward(self._model, self._data)
        everything = int(mujoco.mjtCatBit.mjCAT_ALL)
        mujoco.mjv_updateScene(
            self._model, self._data, self._option, None, self._camera, everything, self._scene
        )
        mujoco.mjr_render(self._rectangle, self._scene, self._context)
        frame = np.empty((self._rectangle.height, self._rectangle.width, 3), dtype=np.uint8)
        mujoco.mjr_readPixels(frame, None, self._rectangle, self._context)
        return frame[::-1].copy()

    def close(self) -> None:
        """Free the context."""
        self._context.free()
        self._gl.free()


def _open_contexts(model: mujoco.MjModel, width: int, height: int) -> tuple[Any, mujoco.MjrContext]:
    """Return an OpenGL context and MuJoCo's rendering context in it, from the first backend that works."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if sys.platform != "linux" or chosen not in ("", *_HEADLESS):
        backends = ["mujoco.gl_context"]
    else:
        backends = [f"mujoco.{name}" for name in _HEADLESS if chosen in ("", name)]
    reasons = []
    for name in backends:
        try:
            gl = importlib.import_module(name).GLContext(width, height)
            gl.make_current()
            return gl, mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_100)
        # The bindings raise whatever their loader meets: ImportError, AttributeError, OSError, FatalError.
        except Exception as error:
            reasons.append(f"{name}: {error}")
    raise RenderingUnavailableError(
        f"cannot render without a display ({'; '.join(reasons)}); "
        "install libegl1 and libgl1-mesa-dri (or libosmesa6)"
    )
