"""CREMA-D: generated folders of the official layout, with official ids."""

import json

import pytest
from clips import RATE, chosen, manifest, reasons, write_frames, write_video, write_wav
from PIL import Image

from counterpoise.cli import main
from counterpoise.datasets import get, media

SMALLER = [
    "--data.modalities.visual.init_args.size", "32", "--accelerator", "cpu", "--progress", "false",
]  # fmt: skip


@pytest.fixture(scope="module")
def crema(tmp_path_factory):
    """Raw CREMA-D: 6 clips of each part, half as FLV, half as frames that are extracted already."""
    root = tmp_path_factory.mktemp("CREMA-D")
    rows = chosen(get("cremad"), 6)
    for i, row in enumerate(rows):
        write_wav(root / "AudioWAV" / f"{row.id}.wav", i)
        if i % 2:
            write_video(root / "VideoFlash" / f"{row.id}.flv", i)
        else:
            write_frames(root / "Image-01-FPS" / row.id, i)
    return root, rows


@pytest.fixture(scope="module")
def prepared(crema, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return get("cremad").prepare(crema[0], out, workers=2, progress=False)


def test_cremad_to_splits_and_two_training_steps(crema, prepared, tmp_path):
    _, rows = crema
    assert prepared.counts == {"train": 6, "val": 6, "test": 6}
    assert {(r["id"], r["label"], r["split"], r["group"]) for r in manifest(prepared.out)} == {
        (r.id, r.label, r.part, r.id[:4]) for r in rows
    }
    splits = get("cremad").table(prepared.out).splits()
    assert splits.classes == ("NEU", "HAP", "SAD", "FEA", "DIS", "ANG")
    assert splits.train.target.unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert splits.train.batch([0], "audio", None).shape == (1, 1, 257, 188)
    assert splits.train.batch([0], "visual", None).shape == (1, 3, 1, 224, 224)
    run = tmp_path / "run"
    with pytest.raises(SystemExit) as stop:
        main([
            "fit", "--method", "Joint", "--config", str(prepared.config), *SMALLER,
            "--data.modalities.audio.init_args.seconds", "0.5",
            "--epochs", "1", "--batch_size", "3", "--run_dir", str(run),
        ])  # fmt: skip
    assert stop.value.code == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1
    assert "ResNet18" in (run / "config.yaml").read_text()


def test_every_listed_clip_is_prepared_or_excluded(prepared):
    left_out = reasons(prepared.out)
    kept = {row["id"] for row in manifest(prepared.out)}
    assert len(kept) + len(left_out) == 7442
    assert not kept & set(left_out)
    assert prepared.excluded == {"vanished": 7424}
    assert all(reason.startswith("vanished: nothing named") for reason in left_out.values())


def test_frames_of_a_video_follow_the_published_rule(tmp_path):
    long, short = tmp_path / "long.flv", tmp_path / "short.mp4"
    write_video(long, 0, frames=35)
    write_video(short, 0, frames=15)
    media.extract_frames(long, tmp_path / "a")
    media.extract_frames(short, tmp_path / "b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["00000.jpg", "00010.jpg", "00020.jpg", "00030.jpg"]
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == ["00002.jpg", "00007.jpg", "00012.jpg"]


def test_card_and_checks_tell_what_is_missing(prepared, capsys):
    card = prepared.card.read_text()
    assert "Open Database License" in card
    assert "| total | 6 | 6 | 6 |" in card
    assert "7424 x vanished" in card
    found = {c.item: c for c in prepared.checks}
    assert found["train+val: samples in the list"].ok
    assert (found["train+val: samples prepared"].expected, found["train+val: samples prepared"].found) == ("6698", "12")
    assert not found["test: samples prepared"].ok
    assert found["test: ANG"].expected == "105"
    assert found["SHA-256 of list cremad"].ok
    assert found["audio: equal files in two parts"].ok
    assert found["frames per clip"].ok
    with pytest.raises(SystemExit) as stop:
        main(["data", "verify", "cremad", "--out", str(prepared.out)])
    assert stop.value.code == 1
    shown = [[cell.strip() for cell in line.split("|")] for line in capsys.readouterr().out.splitlines()]
    assert ["", "train+val: samples prepared", "6698", "12", "OFF", ""] in shown
    assert ["34 checks, 21 off"] in shown


@pytest.mark.parametrize(("split", "shared"), [("ogm", 91), ("mla", 91), ("speaker", 0)])
def test_cremad_lists_are_the_published_ones(split, shared):
    dataset = get("cremad")
    rows = dataset.rows(None, split)
    listed = [{"id": r.id, "label": r.label, "split": r.part, "group": r.group} for r in rows]
    from counterpoise.datasets import checks

    assert len({r.id for r in rows}) == 7442
    assert all(r.label == r.id.split("_")[2] for r in rows)
    assert all(c.ok for c in checks.counts(dataset.published(split), listed, []))
    leak = {c.item.split(" (")[0]: c for c in checks.leaks(listed, dataset.shared_groups[split])}
    assert leak["groups both in test and outside"].found == str(shared)
    assert all(c.ok for c in leak.values())  # reported; the published splits are what they are
    assert dataset.checksums(None) == dataset.lists
    sizes = {"ogm": (5954, 744, 744), "mla": (6028, 670, 744), "speaker": (5152, 1142, 1148)}[split]
    assert tuple(sum(r.part == p for r in rows) for p in ("train", "val", "test")) == sizes


def test_actors_of_the_speaker_split():
    actors = {}
    for row in get("cremad").rows(None, "speaker"):
        actors.setdefault(row.part, set()).add(row.group)
    assert {part: len(names) for part, names in actors.items()} == {"train": 63, "val": 14, "test": 14}
    assert len(set.union(*actors.values())) == 91


def test_resuming_converts_only_what_is_not_there(crema, tmp_path, monkeypatch):
    dataset, done = get("cremad"), []
    extract = media.extract_frames

    def interrupted(video, target):
        if len(done) == 4:
            raise KeyboardInterrupt
        extract(video, target)
        done.append(target.name)

    monkeypatch.setattr(media, "extract_frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dataset.prepare(crema[0], tmp_path / "out", workers=1, progress=False)
    assert len(done) == 4
    assert not (tmp_path / "out" / "manifest.csv").exists()
    again = []
    monkeypatch.setattr(
        media, "extract_frames", lambda video, target: (extract(video, target), again.append(target.name))
    )
    made = dataset.prepare(crema[0], tmp_path / "out", workers=2, progress=False)
    assert sum(made.counts.values()) == 18
    assert len(again) == 5
    assert not set(again) & set(done)
    assert not list((tmp_path / "out").rglob(".writing-*"))
    # another split in the same folder converts nothing
    again.clear()
    other = dataset.prepare(crema[0], tmp_path / "out", split="mla", progress=False)
    assert (sum(other.counts.values()), again) == (18, [])
    assert {r["split"] for r in manifest(other.out)} <= {"train", "val", "test"}
    assert json.loads((other.out / "prepared.json").read_text())["split"] == "mla"


def test_an_interrupted_clip_leaves_nothing_behind(tmp_path, monkeypatch):
    write_video(tmp_path / "a.flv", 0)
    monkeypatch.setattr(
        Image.Image, "save", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space left"):
        media.extract_frames(tmp_path / "a.flv", tmp_path / "frames" / "a")
    assert list((tmp_path / "frames").iterdir()) == []


def test_bad_clips_are_excluded_with_a_reason(tmp_path):
    root, rows = tmp_path / "raw", chosen(get("cremad"), 4)
    names = [row.id for row in rows]
    for i, name in enumerate(names):
        write_wav(root / "AudioWAV" / f"{name}.wav", i)
        write_video(root / "VideoFlash" / f"{name}.flv", i)
    sound, video = root / "AudioWAV", root / "VideoFlash"
    cut = sound / f"{names[0]}.wav"
    cut.write_bytes(cut.read_bytes()[:-500])
    (video / f"{names[1]}.flv").write_bytes(b"")
    (video / f"{names[2]}.flv").unlink()
    (sound / f"{names[3]}.wav").unlink()
    (video / f"{names[4]}.flv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    write_video(video / f"{names[5]}.flv", 5, frames=2)
    write_wav(root / "more" / f"{names[6]}.wav", 99, seconds=0.7)
    write_wav(root / "more" / f"{names[7]}.wav", 7)
    half = video / f"{names[8]}.flv"
    half.write_bytes(half.read_bytes()[: half.stat().st_size // 2])
    write_wav(sound / f"{names[9]}.wav", 0, seconds=0)
    (root / "loop").symlink_to(root)
    made = get("cremad").prepare(root, tmp_path / "out", progress=False)
    why = reasons(made.out)
    assert "truncated" in why[names[0]]
    assert why[names[0]].startswith("damaged")
    assert "empty (0 bytes)" in why[names[1]]
    assert why[names[2]].startswith("no picture")
    assert why[names[3]].startswith("no sound")
    assert "git lfs pull" in why[names[4]]
    assert why[names[5]].startswith("too few frames")
    assert why[names[6]].startswith("ambiguous")
    assert names[7] not in why  # the same file twice is no conflict
    assert why[names[8]].startswith("damaged")
    assert "0 samples" in why[names[9]]
    assert {row["id"] for row in manifest(made.out)} == {names[7], names[10], names[11]}
    assert sum(made.excluded.values()) + 3 == 7442
    assert made.excluded["damaged"] == 4
    assert all(str(n) in made.card.read_text() for n in made.excluded.values())


def test_sound_of_the_video_stands_in_for_a_wav(tmp_path):
    row = chosen(get("cremad"), 1)[0]
    write_video(tmp_path / "raw" / f"{row.id}.mp4", 0, sound=True)
    made = get("cremad").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert manifest(made.out)[0]["id"] == row.id
    assert media.seconds(made.out / "audio" / f"{row.id}.wav") == pytest.approx(2, abs=0.3)
    assert media.seconds(made.out / "audio" / f"{row.id}.wav") == pytest.approx(
        float(manifest(made.out)[0]["seconds"]), abs=1e-3
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "no clip under"),
        (lambda root: write_wav(root / "AudioWAV" / "1001_DFA_ANG_XX.wav", 0), "no picture of any clip"),
        (lambda root: write_frames(root / "Image-01-FPS" / "1001_DFA_ANG_XX", 0), "no sound of any clip"),
        (lambda root: write_wav(root / "renamed.wav", 0), "no clip under"),
    ],
)
def test_wrong_layouts_say_what_is_missing_and_where_to_get_it(tmp_path, make, message):
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match=message) as error:
        get("cremad").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    assert "AudioWAV/<clip>.wav" in str(error.value)
    assert "https://github.com/CheyneyComputerScience/CREMA-D" in str(error.value)


def test_lists_beside_the_clips_are_compared(crema, tmp_path):
    root = tmp_path / "raw"
    (root / "annotations").mkdir(parents=True)
    for folder in ("AudioWAV", "VideoFlash", "Image-01-FPS"):
        (root / folder).symlink_to(crema[0] / folder)
    rows = get("cremad").rows(None, "ogm")
    lines = [f"{r.id},{r.label}" for r in rows if r.part == "test"]
    (root / "annotations" / "test.csv").write_text("\n".join(lines) + "\n")
    (root / "annotations" / "train.csv").write_text(f"{lines[0]}\n{lines[0]}\nnobody,NEU\n")
    (root / "stat.csv").write_bytes(b"\xef\xbb\xbfNEU\r\nHAP\r\nSAD\r\nFEA\r\nDIS\r\nANG\r\n")  # as published, with BOM
    notes = get("cremad").prepare(root, tmp_path / "out", progress=False).card.read_text()
    assert "stat.csv of the raw folder: the class order used here" in notes
    assert "test.csv of the raw folder: the list of split ogm" in notes
    assert "train.csv of the raw folder: another list (3 rows, 1 ids twice, 1 unknown clips); not used" in notes


def test_links_that_lead_nowhere_are_excluded(tmp_path):
    root, rows = tmp_path / "raw", chosen(get("cremad"), 1)
    write_wav(root / "AudioWAV" / f"{rows[0].id}.wav", 0)
    for i, row in enumerate(rows):
        write_frames(root / "Image-01-FPS" / row.id, i)
    itself, gone = (root / "AudioWAV" / f"{row.id}.wav" for row in rows[1:3])
    itself.symlink_to(itself)
    gone.symlink_to(tmp_path / "nowhere.wav")
    made = get("cremad").prepare(root, tmp_path / "out", progress=False)
    why = reasons(made.out)
    assert why[rows[1].id].startswith("unreadable: ")
    assert "symbolic links" in why[rows[1].id]
    assert "No such file" in why[rows[2].id]
    assert made.excluded["unreadable"] == 2


def test_recordings_of_different_rates_become_one_shape(tmp_path):
    root, rows = tmp_path / "raw", chosen(get("cremad"), 1)
    for i, (row, rate) in enumerate(zip(rows, (8000, 16000, 48000), strict=True)):
        write_wav(root / "AudioWAV" / f"{row.id}.wav", i, seconds=2.0 * rate / RATE)
        path = root / "AudioWAV" / f"{row.id}.wav"
        path.write_bytes(path.read_bytes()[:24] + rate.to_bytes(4, "little") + path.read_bytes()[28:])
        write_frames(root / "Image-01-FPS" / row.id, i)
    made = get("cremad").prepare(root, tmp_path / "out", progress=False)
    assert [float(row["seconds"]) for row in manifest(made.out)] == [2.0, 2.0, 2.0]
    table = get("cremad").table(made.out).samples()
    assert table.batch([0, 1, 2], "audio", None).shape == (3, 1, 257, 188)


def test_a_list_beside_the_clips_in_another_encoding_is_noted(tmp_path):
    row = chosen(get("cremad"), 1)[0]
    write_wav(tmp_path / "raw" / "AudioWAV" / f"{row.id}.wav", 0)
    write_frames(tmp_path / "raw" / "Image-01-FPS" / row.id, 0)
    (tmp_path / "raw" / "train.csv").write_bytes("café,NEU\n".encode("latin-1"))
    card = get("cremad").prepare(tmp_path / "raw", tmp_path / "out", progress=False).card.read_text()
    assert "train.csv of the raw folder: cannot be read ('utf-8' codec" in card
