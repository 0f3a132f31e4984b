"""Videos and cameras: what a model finds, drawn into their frames."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import Metadata
from detectron2.engine import DefaultPredictor
from detectron2.utils.video_visualizer import VideoVisualizer
from tqdm import tqdm

from ..errors import InputError
from ..files import replacing
from .draw import free_path
from .inputs import check_target
from .visualize import Found, draw_frame, set_threshold

__all__ = [
    "check_windows",
    "drawn_frames",
    "frame_count",
    "frame_rate",
    "open_camera",
    "open_video",
    "record",
    "show",
    "video_target",
]

_CODECS = {".mp4": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
_RATE = 25.0  # frames a second, of a camera or video that does not tell
_ESCAPE = 27


def open_video(name: str) -> cv2.VideoCapture:
    """A video to read frames from.

    Raises:
        InputError: it is not there, or OpenCV reads no frame of it.
    """
    if not os.path.isfile(name):
        raise InputError(f"--video-input {name!r}: there is no such file")
    video = cv2.VideoCapture(name)
    if not video.isOpened() or not video.grab():
        raise InputError(
            f"--video-input {name!r}: OpenCV reads no frame of it; it is no video, it is cut, or "
            "this OpenCV lacks its codec (write it again, e.g. with ffmpeg, as H.264 in .mp4)"
        )
    return cv2.VideoCapture(name)  # from the first frame again


def open_camera() -> cv2.VideoCapture:
    """The first camera of this machine; :class:`InputError` where there is none."""
    camera = cv2.VideoCapture(0)
    if not camera.isOpened():
        raise InputError("--webcam: OpenCV finds no camera; connect one, or give --video-input")
    return camera


def check_windows() -> None:
    """Raise :class:`InputError` where OpenCV cannot show a window."""
    try:
        cv2.namedWindow("ptq_det")
        cv2.destroyAllWindows()
    except cv2.error as error:
        raise InputError(
            "this OpenCV shows no windows (it is opencv-python-headless, or there is no screen); "
            "give --output, and the video is written"
        ) from error


def video_target(output: str, stem: str) -> Path:
    """Where to write a video: the file that is named, or a new one in the folder that is named.

    Args:
        output: a folder, or a file that ends in .mp4, .mkv or .avi.
        stem: name of the file in the folder, without ending.

    Raises:
        InputError: the file is there already, or cannot be written.
        OSError: the folder cannot be made.
    """
    path = Path(output)
    if path.suffix.lower() not in _CODECS:
        path.mkdir(parents=True, exist_ok=True)
        return free_path(path, stem, set(), ".mp4")
    if os.path.lexists(path):
        raise InputError(f"--output {output!r} is there already; name another file, or a folder")
    check_target(path)
    return path


def drawn_frames(
    predictor: DefaultPredictor, metadata: Metadata, video: cv2.VideoCapture, threshold: float
) -> Iterator[np.ndarray]:
    """The frames of a video with what was found in them, BGR, and a bar of progress.

    Raises:
        InputError: a frame cannot be predicted (it is too thin to be scaled).
    """
    set_threshold(predictor.model, threshold)
    drawing = VideoVisualizer(metadata)
    count = frame_count(video)
    with tqdm(total=count or None, desc="Drawing", unit=" frames") as progress:
        while True:
            there, frame = video.read()
            if not there:
                return
            try:
                found = Found.of(predictor(frame), threshold)
            except (OSError, ValueError) as error:
                raise InputError(f"frame {progress.n + 1} of the video: {error}") from error
            yield draw_frame(frame, found, drawing)
            progress.update()


def frame_count(video: cv2.VideoCapture) -> int:
    """How many frames a video says it has; 0 where it does not tell."""
    count = video.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and count > 0 else 0


def frame_rate(video: cv2.VideoCapture) -> float:
    """Frames a second."""
    rate = video.get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate <= 1000 else _RATE


def record(frames: Iterator[np.ndarray], path: Path, rate: float) -> int:
    """Write frames as a video, until they end or the user does (Ctrl-C); how many they were.

    Raises:
        InputError: OpenCV cannot write the file, or there is no frame.
    """
    count, writer = 0, None
    code = cv2.VideoWriter_fourcc(*_CODECS[path.suffix.lower()])
    with replacing(path) as scratch:
        try:
            for frame in frames:
                if writer is None:
                    size = (frame.shape[1], frame.shape[0])
                    writer = cv2.VideoWriter(os.fspath(scratch), code, rate, size)
                if not writer.isOpened():
                    raise InputError(
                        f"this OpenCV cannot write {path.suffix} of {size[0]} x {size[1]} pixels; "
                        "give --output a file that ends in .avi"
                    )
                writer.write(frame)
                count += 1
        except KeyboardInterrupt:
            pass
        finally:
            if writer is not None:
                writer.release()
        if not count:
            raise InputError(f"no frame came, so {path.name} is not written")
    return count


def show(frames: Iterator[np.ndarray], title: str) -> int:
    """Show frames in a window, until they end or the user does (Esc, Ctrl-C); how many it were."""
    count = 0
    with suppress(KeyboardInterrupt):
        for frame in frames:
            count += 1
            cv2.imshow(title, frame)
            if cv2.waitKey(1) == _ESCAPE:
                break
    cv2.destroyAllWindows()
    return count
