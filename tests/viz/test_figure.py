"""A picture is a file of its own making: whole or not there, alike on every machine, and drawn without a word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from PIL import Image

from gpucnn.viz.figure import picture, shortened


def test_a_picture_has_the_size_that_was_asked_for(tmp_path):
    with picture(tmp_path / "a.png", 3.0, 2.0) as figure:
        figure.add_subplot().plot([1, 2])
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.size) == ("PNG", (360, 240))


def test_a_drawing_that_fails_leaves_the_picture_before(tmp_path):
    (tmp_path / "a.png").write_bytes(b"the one before")
    with pytest.raises(RuntimeError, match="half-way"), picture(tmp_path / "a.png", 3.0, 2.0) as figure:
        figure.add_subplot()
        raise RuntimeError("half-way")
    assert (tmp_path / "a.png").read_bytes() == b"the one before"
    assert [file.name for file in tmp_path.iterdir()] == ["a.png"]


def test_the_readers_own_settings_do_not_reach_a_picture(tmp_path):
    import matplotlib

    def drawn(name: str) -> bytes:
        with picture(tmp_path / name, 3.0, 2.0) as figure:
            figure.add_subplot().plot([1, 2])
        return (tmp_path / name).read_bytes()

    plain = drawn("plain.png")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9, "savefig.dpi": 10}):
        assert drawn("dark.png") == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.skipif(os.name != "posix", reason="the home folder is POSIX's")
def test_a_home_that_cannot_be_written_is_nothing_to_speak_of(tmp_path):
    (tmp_path / "file").write_text("")
    variables = {key: value for key, value in os.environ.items() if key != "MPLCONFIGDIR" and "XDG" not in key}
    variables |= {"HOME": str(tmp_path / "file" / "home"), "TMPDIR": str(tmp_path)}
    code = "import sys; from pathlib import Path; import numpy as np; from gpucnn.viz import matrix\n"
    code += "matrix.draw_confusion(np.eye(3, dtype=int), ['a', 'b', 'c'], Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_names_that_are_too_long_are_cut():
    assert shortened("aquarium fish", 13) == "aquarium fish"
    assert shortened("aquarium fish", 12) == "aquarium fi\u2026"
