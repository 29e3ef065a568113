"""Images and videos of other tools through PyAV: PNG and JPEG are read, H.264 is written and read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from serfn.core.errors import DataError
from serfn.core.extras import extra
from serfn.data.source import understood

_PIXELS = {1: "gray", 3: "rgb24", 4: "rgba"}
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8"

_CRF = "18"
"""Quality of H.264; at 18 the loss is hard to see."""

_KEYFRAME_EVERY = "2"
"""Frames from one directly readable frame to the next: learners read single frames at random."""

_TOLERANCE_FRAMES = 0.1


def load_av() -> ModuleType:
    """Return PyAV.

    Raises:
        MissingExtraError: It is not installed.
    """
    with extra("formats"):
        import av
    return av


def decode_image(data: bytes, shape: Sequence[int] | None = None) -> np.ndarray:
    """Return a PNG or JPEG file as `[height, width, channels]` uint8.

    Args:
        data: The file.
        shape: What it must have; None takes what the file has, in colour.

    Raises:
        DataError: The content cannot be decoded, or has another shape.
    """
    av = load_av()
    if not data.startswith((_PNG, _JPEG)):
        raise DataError(f"an image starts with the bytes {data[:8]!r}; only PNG and JPEG are read")
    codec = av.CodecContext.create("png" if data.startswith(_PNG) else "mjpeg", "r")
    codec.options = {"max_pixels": str(_most_pixels(shape))}
    with understood("an image", av.FFmpegError):
        frame = (codec.decode(av.Packet(data)) or codec.decode(None))[0]
        channels = 3 if shape is None else shape[2]
        image = _with_channels(frame.to_ndarray(format=pixel_format(channels)))
    if shape is not None and image.shape != tuple(shape):
        raise DataError(f"an image has shape {list(image.shape)}; expected {list(shape)}")
    return image


def pixel_format(channels: int) -> str:
    """Return FFmpeg's name of bytes with so many channels.

    Raises:
        DataError: There is none.
    """
    if channels not in _PIXELS:
        raise DataError(f"images with {channels} channels cannot be stored; give 1, 3 or 4")
    return _PIXELS[channels]


class VideoWriter:
    """Writes the frames of one camera to an MP4 file, frame k shown at k / fps seconds.

    Args:
        path: File to write.
        shape: `(height, width, 3)` of every frame.
        fps: Frames per second.

    Attributes:
        frames: Frames written so far.
        bytes: Their compressed size so far.

    Raises:
        DataError: The frames are not in colour.
    """

    def __init__(self, path: Path, shape: Sequence[int], fps: float) -> None:
        if shape[2] != 3:
            raise DataError(f"videos hold colour images, got {shape[2]} channels; store PNG images instead")
        av = load_av()
        self._frame = av.VideoFrame
        self.frames = 0
        self.bytes = 0
        rate = as_fraction(fps)
        self._container = av.open(str(path), "w", format="mp4")
        # One thread makes the file independent of the machine; B-frames only complicate timestamps.
        options = {"crf": _CRF, "g": _KEYFRAME_EVERY, "bf": "0", "threads": "1"}
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        self._stream.height, self._stream.width = shape[:2]
        # Halved colour resolution needs even sizes.
        self._stream.pix_fmt = "yuv420p" if shape[0] % 2 == shape[1] % 2 == 0 else "yuv444p"
        self._stream.time_base = self._stream.codec_context.time_base = 1 / rate

    @property
    def info(self) -> dict[str, Any]:
        """What LeRobot notes about a video in `info.json`."""
        return {
            "video.height": self._stream.height,
            "video.width": self._stream.width,
            "video.codec": "h264",
            "video.pix_fmt": self._stream.pix_fmt,
            "video.fps": as_number(float(self._stream.average_rate)),
            "video.channels": 3,
            "is_depth_map": False,
            "has_audio": False,
        }

    def write(self, images: np.ndarray) -> None:
        """Append `[frames, height, width, 3]` uint8."""
        for image in images:
            frame = self._frame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = self.frames, self._stream.codec_context.time_base
            self._mux(frame)
            self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        try:
            self._mux(None)
        finally:
            self._container.close()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self.bytes += packet.size
            self._container.mux(packet)


def read_frames(path: Path, times_s: np.ndarray, shape: Sequence[int], fps: float) -> np.ndarray:
    """Return the frames of a video that are shown at ascending times.

    Args:
        path: Video file.
        times_s: `[frames]`, seconds since the start of the video.
        shape: `(height, width, channels)` that the frames must have.
        fps: Frames per second; a frame may be off by a tenth of its duration.

    Returns:
        `[frames, height, width, channels]` uint8.

    Raises:
        DataError: The video cannot be read, has another size, or no frame at one of the times.
    """
    tolerance = _TOLERANCE_FRAMES / fps
    images = np.empty((len(times_s), *shape), np.uint8)
    wanted = 0
    for time, frame in _frames_from(path, float(times_s[0]), shape):
        if (frame.height, frame.width) != tuple(shape[:2]):
            raise DataError(
                f"'{path}' has frames of {[frame.height, frame.width]} pixels; expected {list(shape[:2])}"
            )
        while wanted < len(times_s) and abs(time - times_s[wanted]) <= tolerance:
            images[wanted] = _with_channels(frame.to_ndarray(format=pixel_format(shape[2])))
            wanted += 1
        if wanted == len(times_s):
            return images
        if time > times_s[wanted] + tolerance:
            break
    raise DataError(f"'{path}' shows no frame at {times_s[wanted]:.6g} s; the video is cut or out of step")


def as_fraction(rate: float) -> Fraction:
    """Return a rate such as 30 or 29.97 as a fraction that containers can store."""
    return Fraction(rate).limit_denominator(1001)


def as_number(rate: float) -> int | float:
    """Return a whole rate as an int, as LeRobot writes it."""
    return int(rate) if rate == int(rate) else rate


def _frames_from(path: Path, start_s: float, shape: Sequence[int]) -> Iterator[tuple[float, Any]]:
    """Yield `(seconds, frame)` from the last directly readable frame at or before `start_s`."""
    av = load_av()
    with _opened(av, path) as container, understood(f"video '{path}'", av.FFmpegError):
        stream = container.streams.video[0]
        stream.codec_context.options = {"max_pixels": str(_most_pixels(shape))}
        container.seek(max(0, round(start_s / stream.time_base) - 1), stream=stream)
        for frame in container.decode(stream):
            if frame.pts is not None:
                yield float(frame.pts * frame.time_base), frame


@contextmanager
def _opened(av: ModuleType, path: Path) -> Iterator[Any]:
    with understood(f"video '{path}'", av.FFmpegError):
        container = av.open(str(path), metadata_errors="replace")
    try:
        yield container
    finally:
        container.close()


def _most_pixels(shape: Sequence[int] | None) -> int:
    """Return how many pixels a decoder may make room for; it counts some beyond the edges."""
    return 1 << 26 if shape is None else (int(shape[0]) + 256) * (int(shape[1]) + 256)


def _with_channels(array: np.ndarray) -> np.ndarray:
    return array[..., None] if array.ndim == 2 else array
