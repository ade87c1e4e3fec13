"""The study folder: copies appear once, a learner's work is never overwritten."""

from __future__ import annotations

import pytest

from utils import study


@pytest.fixture
def course(tmp_path):
    chapters = tmp_path / "chapters"
    chapters.mkdir()
    (chapters / "00_first.ipynb").write_text("version 1")
    (chapters / "01_second.ipynb").write_text("second")
    (chapters / "reference.md").write_text("terms")
    return chapters


def test_first_copy_takes_everything(course, tmp_path):
    done = study.copy_chapters(course, tmp_path / "work")
    assert done.new == ["00_first.ipynb", "01_second.ipynb", "reference.md"]
    assert (tmp_path / "work" / "00_first.ipynb").read_text() == "version 1"


def test_work_is_never_overwritten(course, tmp_path):
    work = tmp_path / "work"
    study.copy_chapters(course, work)
    (work / "00_first.ipynb").write_text("my answers")
    assert study.copy_chapters(course, work).kept == ["00_first.ipynb", "01_second.ipynb", "reference.md"]
    (course / "00_first.ipynb").write_text("version 2")
    done = study.copy_chapters(course, work)
    assert done.outdated == ["00_first.ipynb"]
    assert (work / "00_first.ipynb").read_text() == "my answers"


def test_renewed_chapter_is_put_beside(course, tmp_path):
    work = tmp_path / "work"
    study.copy_chapters(course, work)
    (work / "00_first.ipynb").write_text("my answers")
    (course / "00_first.ipynb").write_text("version 2")
    done = study.copy_chapters(course, work, renew="00")
    assert done.new == ["00_first_version2.ipynb"]
    assert (work / "00_first_version2.ipynb").read_text() == "version 2"
    assert (work / "00_first.ipynb").read_text() == "my answers"
    assert study.copy_chapters(course, work).outdated == []


def test_new_chapters_arrive_later(course, tmp_path):
    work = tmp_path / "work"
    study.copy_chapters(course, work)
    (course / "02_third.ipynb").write_text("third")
    assert study.copy_chapters(course, work).new == ["02_third.ipynb"]


def test_damaged_record_loses_no_work(course, tmp_path):
    work = tmp_path / "work"
    study.copy_chapters(course, work)
    (work / "00_first.ipynb").write_text("my answers")
    (work / study.RECORD).write_text("[broken")
    study.copy_chapters(course, work)
    assert (work / "00_first.ipynb").read_text() == "my answers"


def test_command_copies_and_reports(course, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    assert study.main(["--no-open"]) == 0
    assert "copied   00_first.ipynb" in capsys.readouterr().out
    assert study.main(["--no-open"]) == 0
    assert "kept     00_first.ipynb (yours)" in capsys.readouterr().out


def test_missing_chapters_and_blocked_folder_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study, "ROOT", tmp_path)
    assert study.main(["--no-open"]) == 1
    assert "no chapter notebooks" in capsys.readouterr().err
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "00_first.ipynb").write_text("1")
    (tmp_path / "work").write_text("a file in the way")
    assert study.main(["--no-open"]) == 1
    assert "Cannot prepare" in capsys.readouterr().err
