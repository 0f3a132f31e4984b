import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ptq_det.commands import demo, video
from ptq_det.data.shapes import generate_shapes
from ptq_det.errors import InputError


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """A video of four frames, of 128 x 128 pixels, with things that the packaged model finds."""
    folder = tmp_path_factory.mktemp("clip")
    generate_shapes(folder, "val", 2)
    writer = cv2.VideoWriter(
        str(folder / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (128, 128)
    )
    for name in sorted((folder / "val").glob("*.png")) * 2:
        writer.write(cv2.resize(cv2.imread(str(name)), (128, 128)))
    writer.release()
    return folder / "clip.avi"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the tool, in a folder of its own; its exit status and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "setup_logger", lambda **options: None)

    def tool(*words):
        monkeypatch.setattr(sys, "argv", ["demo", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            demo.main()
        return end.value.code, capsys.readouterr()

    return tool


def frames_of(path) -> np.ndarray:
    reader, frames = cv2.VideoCapture(str(path)), []
    while (read := reader.read())[0]:
        frames.append(read[1])
    return np.stack(frames)


def test_a_video_is_drawn_frame_by_frame(clip, run, tmp_path):
    code, said = run("--video-input", clip, "--output", "drawn")
    assert code == 0 and said.out == "drawn/clip.mp4: 4 frames\n"
    assert "4/4" in said.err  # progress
    drawn, before = frames_of(tmp_path / "drawn/clip.mp4"), frames_of(clip)
    assert drawn.shape == before.shape
    assert (np.abs(drawn.astype(int) - before) > 60).mean() > 0.005
    assert cv2.VideoCapture(str(tmp_path / "drawn/clip.mp4")).get(cv2.CAP_PROP_FPS) == 10
    run("--video-input", clip, "--output", "drawn")  # again
    assert {path.name for path in (tmp_path / "drawn").iterdir()} == {"clip.mp4", "clip_2.mp4"}
    code, _ = run("--video-input", clip, "--output", "one.avi")
    assert code == 0 and len(frames_of(tmp_path / "one.avi")) == 4
    code, said = run("--video-input", clip, "--output", "one.avi")
    assert code == 2 and "'one.avi' is there already" in said.err


def test_a_video_that_cannot_be_read_is_said(clip, run, tmp_path):
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "cut.avi").write_bytes(clip.read_bytes()[:500])
    for name, message in {
        "no.mp4": "there is no such file",
        "text.mp4": "OpenCV reads no frame of it",
        "cut.avi": "OpenCV reads no frame of it",
    }.items():
        code, said = run("--video-input", name, "--output", "drawn")
        assert code == 2 and f"error: --video-input '{name}': {message}" in said.err
    assert not (tmp_path / "drawn").exists()


def test_a_video_whose_end_is_missing_is_drawn_as_far_as_it_goes(clip, run, tmp_path):
    (tmp_path / "half.avi").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    code, said = run("--video-input", "half.avi", "--output", "drawn")
    assert code == 0
    assert said.out.startswith("drawn/half.mp4: ") and "4 that the file says" in said.out


def test_what_opencv_lacks_here_is_said(run, monkeypatch, clip):
    def none(*args):
        raise cv2.error("no windows")

    monkeypatch.setattr(cv2, "namedWindow", none)
    code, said = run("--video-input", clip)
    assert code == 2 and "shows no windows" in said.err and "give --output" in said.err
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera([]))
    code, said = run("--webcam", "--output", "drawn")
    assert code == 2 and "finds no camera" in said.err


class Camera:
    """OpenCV's interface to frames that are there already; then the user ends it."""

    def __init__(self, frames):
        self.frames = list(frames)
        self.isOpened = lambda: len(frames) > 0

    def read(self):
        if not self.frames:
            raise KeyboardInterrupt
        return True, self.frames.pop(0)

    def get(self, key):
        return -1.0


def test_a_camera_is_recorded_until_the_user_ends_it(clip, run, monkeypatch, tmp_path):
    frames, opened = frames_of(clip)[:3], cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoCapture", lambda number: Camera(frames))
    code, said = run("--webcam", "--output", "drawn")
    monkeypatch.setattr(cv2, "VideoCapture", opened)
    assert code == 0 and said.out == "drawn/webcam.mp4: 3 frames\n"
    assert len(frames_of(tmp_path / "drawn/webcam.mp4")) == 3


def test_frames_are_shown_until_escape(monkeypatch):
    shown = []
    monkeypatch.setattr(cv2, "imshow", lambda title, frame: shown.append(frame))
    monkeypatch.setattr(cv2, "waitKey", lambda wait: 27 if len(shown) == 2 else -1)
    monkeypatch.setattr(cv2, "destroyAllWindows", lambda: None)
    assert video.show(iter(np.zeros((5, 4, 4, 3), np.uint8)), "a") == len(shown) == 2


def test_a_file_that_cannot_be_written_is_said_and_not_left(tmp_path, monkeypatch):
    class Closed:
        def __init__(self, *args):
            self.isOpened, self.release = (lambda: False), (lambda: None)

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    monkeypatch.setattr(cv2, "VideoWriter_fourcc", lambda *letters: 0, raising=False)
    with pytest.raises(InputError, match=r"cannot write \.mp4 of 4 x 6 pixels"):
        video.record(iter(np.zeros((1, 6, 4, 3), np.uint8)), tmp_path / "a.mp4", 10)
    with pytest.raises(InputError, match="no frame came"):
        video.record(iter(()), tmp_path / "a.mp4", 10)
    assert not list(tmp_path.iterdir())


def test_sources_do_not_go_together(run):
    assert "not allowed with argument" in run("--webcam", "--video-input", "a.mp4")[1].err
    assert "--fine-tune runs" in run("--webcam", "--fine-tune")[1].err
