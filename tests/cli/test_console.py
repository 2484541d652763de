"""Where runs are written that are given no folder."""

from pathlib import Path

from bbox.cli.console import new_folder


def test_two_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bbox.cli.console.time.strftime", lambda _: "20260101-000000")
    for name in ("cgba", "cgba-2", "cgba-3"):
        folder = new_folder("cgba")
        assert folder == Path(f"runs/20260101-000000-{name}")
        folder.mkdir(parents=True)
