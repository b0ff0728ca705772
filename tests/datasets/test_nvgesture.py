"""NVGesture: generated folders of the official layout, the published lists and real clips where they are."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from counterpoise.cli import main
from counterpoise.data import from_arrays
from counterpoise.datasets import checks, files, get
from counterpoise.datasets.flow import _warped, horn_schunck
from counterpoise.datasets.nvgesture import digest, parse

DATA = Path(os.environ.get("COUNTERPOISE_DATA", Path(__file__).parents[3] / "shared" / "data"))
LISTS = DATA / "splits" / "nvgesture"
CLIPS = DATA / "nvgesture_mini" / "nvgesture_mini.npz"

# name, label: four subjects in training, two in the test
TRAIN = [(f"class_{c:02d}/subject{s}_r0", c) for s in (1, 2, 3, 4) for c in (1, 2)]
TEST = [(f"class_{c:02d}/subject{s}_r1", c) for s in (5, 8) for c in (1, 2)]


def write_video(path: Path, seed: int, frames: int = 90):
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 200, (24, 32, 3))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuvj420p"
        for i in range(frames):
            picture = np.roll(noise, i, 1).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def line(name: str, label: object, start: int = 5, end: int = 85) -> str:
    window = f"{start}:{end}"
    return (
        f"path:./Video_data/{name} depth:sk_depth:{window} color:sk_color:{window} "
        f"duo_left:duo_left:{start + 20}:{end + 33} label:{label} \n"
    )


def write_lists(root: Path, naming: str = "correct_cvpr2016_v2", **rows: list[tuple[str, int]]):
    root.mkdir(parents=True, exist_ok=True)
    for part, listed in {"train": TRAIN, "test": TEST, **rows}.items():
        (root / f"nvgesture_{part}_{naming}.lst").write_text("".join(line(*row) for row in listed))


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Videos of all clips, without lists."""
    root = tmp_path_factory.mktemp("videos")
    for i, (name, _) in enumerate(TRAIN + TEST):
        for sensor in ("color", "depth"):
            write_video(root / name / f"sk_{sensor}.avi", 2 * i + (sensor == "depth"))
    return root


def raw_folder(root: Path, videos: Path, flow: bool = True, **lists) -> Path:
    write_lists(root, **lists)
    (root / "Video_data").mkdir()
    for folder in videos.iterdir():
        os.symlink(folder, root / "Video_data" / folder.name)
    for part, rows in (("train", TRAIN), ("test", TEST)) if flow else ():
        (root / "Video_data" / "flow_data" / part).mkdir(parents=True)
        for i in range(len(rows)):
            stored = np.full((40, 48, 2, 79), i, np.float32)
            np.save(root / "Video_data" / "flow_data" / part / f"{i}.npy", stored)
    return root


def manifest(out: Path, name: str = "manifest") -> list[dict[str, str]]:
    return files.read_table(out / f"{name}.csv")


@pytest.mark.parametrize("naming", ["correct_cvpr2016_v2", "correct_v2"])
def test_lists_in_both_namings(tmp_path, videos, naming):
    made = get("nvgesture").prepare(
        raw_folder(tmp_path / "raw", videos, naming=naming), tmp_path / "out", progress=False
    )
    rows = manifest(made.out)
    assert made.counts == {"train": 8, "test": 4}
    assert not made.excluded
    assert rows[0]["rgb"] == "Video_data/class_01/subject1_r0/sk_color.avi#5:85"
    assert (rows[1]["label"], rows[1]["group"], rows[1]["frames"]) == ("2", "subject1", "80")
    # The published place in the list, from 0, is the name of the stored flow.
    assert all(
        np.load(made.out / row["flow"]).max() == i for rows_of in (rows[:8], rows[8:]) for i, row in enumerate(rows_of)
    )
    found = {c.item: c for c in made.checks}
    assert found["frames per clip"].ok
    assert found["rgb: files that are gone"].ok
    assert found["rgb: equal files in two parts"].ok
    assert found["groups both in test and outside"].ok
    assert (found["train: samples in the list"].expected, found["test: samples in the list"].expected) == (
        "1050",
        "482",
    )


def test_validation_holds_other_people(tmp_path, videos):
    made = get("nvgesture").prepare(raw_folder(tmp_path / "raw", videos), tmp_path / "out", progress=False)
    splits = get("nvgesture").table(made.out, val=0.25).splits()
    group = {row["id"]: row["group"] for row in manifest(made.out)}
    people = [{group[i] for i in part.ids} for part in (splits.train, splits.val, splits.test)]
    assert [len(p) for p in people] == [3, 1, 2]
    assert not people[0] & people[1]
    assert len(splits.classes) == 25
    assert splits.train.target.unique().tolist() == [0, 1]


@pytest.mark.slow
def test_flow_is_computed_where_none_is_stored(tmp_path, videos):
    few = {"train": TRAIN[:2], "test": TEST[:1]}
    root = raw_folder(tmp_path / "raw", videos, flow=False, **few)
    made = get("nvgesture").prepare(root, tmp_path / "out", progress=False, workers=1)
    flow = np.load(made.out / manifest(made.out)[0]["flow"])
    assert flow.shape == (256, 256, 2, 79)
    assert flow.dtype == np.float16
    # The scene moves by 1 of 32 pixels per frame, which is 8 of 256, to the right.
    inside = flow[64:-64, 64:-64].astype(np.float32)
    assert abs(float(np.median(inside[:, :, 0])) - 8) < 1
    assert abs(float(np.median(inside[:, :, 1]))) < 0.5
    assert "Horn and Schunck" in made.card.read_text()


def test_what_is_missing_or_damaged_is_counted(tmp_path, videos):
    rows = [*TRAIN[:3], ("class_03/subject9_r0", 3), ("class_01/subject1_r0", 1), ("class_02/subject4_r0", 26)]
    root = raw_folder(tmp_path / "raw", videos, train=rows)
    path = root / "nvgesture_train_correct_cvpr2016_v2.lst"
    path.write_text(
        path.read_text() + line("class_01/subject3_r0", 1, 20, 100) + line("class_01/subject4_r0", 1, 5, 65)
    )
    os.unlink(root / "Video_data" / "class_02")
    for name in ("subject1_r0", "subject2_r0", "subject5_r1", "subject8_r1"):
        os.makedirs(root / "Video_data" / "class_02" / name)
        for sensor in ("sk_color.avi", "sk_depth.avi"):
            os.link(videos / "class_02" / name / sensor, root / "Video_data" / "class_02" / name / sensor)
    cut = root / "Video_data" / "class_02" / "subject5_r1" / "sk_depth.avi"
    content = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(content[: len(content) // 2])
    os.remove(root / "Video_data" / "flow_data" / "train" / "1.npy")
    np.save(root / "Video_data" / "flow_data" / "test" / "0.npy", np.zeros((4, 4, 3)))
    made = get("nvgesture").prepare(root, tmp_path / "out", progress=False)
    reasons = [(row["id"], row["reason"]) for row in manifest(made.out, "excluded")]
    kinds = {(name, reason.partition(":")[0]) for name, reason in reasons}
    assert kinds == {
        ("class_02/subject1_r0", "no flow"),
        ("class_03/subject9_r0", "no video"),
        ("class_01/subject1_r0", "id listed twice"),
        ("class_02/subject4_r0", "unknown label"),
        ("class_01/subject3_r0", "missing frames"),
        ("class_01/subject4_r0", "missing frames"),
        ("class_01/subject5_r1", "damaged"),
        ("class_02/subject5_r1", "damaged"),
    }
    assert any("holds 90, the list asks for those up to 100" in reason for _, reason in reasons)
    assert any("names 5 to 65 of sk_color, 80 are needed" in reason for _, reason in reasons)


@pytest.mark.parametrize(
    "wrong",
    [
        "class_01/subject1_r0 80 0",
        "path:./Video_data/class_01/subject1_r0 depth:sk_depth:1:81 label:1",
        "path:./Video_data/class_01/subject1_r0 depth:sk_depth:1:x color:sk_color:1:81 label:1",
        "path:./Video_data/class_01/someone depth:sk_depth:1:81 color:sk_color:1:81 label:1",
        "path:./Video_data/../subject1_r0 depth:sk_depth:1:81 color:sk_color:1:81 label:1",
    ],
)
def test_wrong_lines_are_named(tmp_path, wrong):
    path = tmp_path / "a.lst"
    path.write_text(line("class_01/subject1_r0", 1) + wrong + "\n")
    with pytest.raises(ValueError, match=r"a.lst, line 2: 'path:./Video_data"):
        parse(path, "train")


def test_nothing_there_says_where_to_get_it(tmp_path):
    (tmp_path / "raw").mkdir()
    with pytest.raises(FileNotFoundError, match=r"nvgesture_train_correct_v2.lst in (.|\n)*research.nvidia.com"):
        get("nvgesture").prepare(tmp_path / "raw", tmp_path / "out", progress=False)
    write_lists(tmp_path / "raw")
    with pytest.raises(FileNotFoundError, match="Video_data"):
        get("nvgesture").prepare(tmp_path / "raw", tmp_path / "out", progress=False)


@pytest.mark.skipif(not LISTS.is_dir(), reason=f"needs the lists in {LISTS} (COUNTERPOISE_DATA)")
def test_the_published_lists_have_the_published_numbers(tmp_path):
    """The complete lists of another loader in the format of NVIDIA's; the fragments of NVIDIA's own agree with them."""
    dataset, samples, labels = get("nvgesture"), [], {}
    for part, name in (("train", "train"), ("test", "valid")):
        entries = [entry.split() for entry in (LISTS / "motionrgbd" / "rgb" / f"{name}.txt").read_text().splitlines()]
        path = tmp_path / f"{part}.lst"
        path.write_text("".join(line(e[0].split("/", 1)[1], int(e[2]) + 1) for e in entries))
        rows = parse(path, part)
        assert digest(rows) == digest(rows[::-1]) == dataset.lists[part]
        samples += [{"id": r.id, "label": r.label, "split": r.part, "group": r.group} for r in rows]
        labels |= {(part, r.id): r.label for r in rows}
    assert all(c.ok for c in checks.counts(dataset.published("official"), samples, []))
    assert all(c.ok for c in checks.leaks(samples, 0))
    for part in ("train", "test"):
        rows = parse(LISTS / "mini" / f"nvgesture_{part}_correct_cvpr2016_v2_mini.lst", part)
        assert len(rows) == 50
        assert all(labels[part, row.id] == row.label for row in rows)
        assert {int(e) - int(s) for row in rows for s, e in [row.facts["color"].split(":")[1:]]} == {80}


@pytest.mark.skipif(not CLIPS.is_file(), reason=f"needs the real clips {CLIPS} (COUNTERPOISE_DATA)")
def test_real_clips_as_arrays():
    with np.load(CLIPS) as stored:
        rgb, depth, has, y = (stored[k] for k in ("rgb", "depth", "has_rgb", "label"))
    clips = torch.from_numpy(rgb).permute(0, 4, 1, 2, 3)
    grey = torch.from_numpy(rgb).float().mean(-1)
    flow = torch.stack([horn_schunck(clip, skip=0) for clip in grey])
    # Seen through the flow, the next frame is nearer to this one.
    still = (grey[:, 1:] - grey[:, :-1]).abs().mean((1, 2, 3))
    moved = torch.stack(
        [(_warped(c[1:, None], f) - c[:-1, None]).abs().mean() for c, f in zip(grey, flow, strict=True)]
    )
    assert (moved <= still).all()
    assert moved[has].mean() < 0.85 * still[has].mean()
    inputs = {"rgb": clips / 255, "depth": torch.from_numpy(depth)[:, None] / 255, "flow": flow.movedim(1, 2)}
    part = np.array(["train" if i % 2 == 0 else "val" for i in range(50)])
    splits = from_arrays(inputs, y, split=part, present={"rgb": has})
    assert splits.classes == tuple(map(str, range(25)))
    assert splits.train.batch([0, 1], "rgb", None).shape == (2, 3, 16, 60, 80)
    assert splits.train.batch([0, 1], "flow", None).shape == (2, 2, 15, 60, 80)
    assert {m for s in (splits.train, splits.val) for m in s.present or {}} == {"rgb"}


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.is_file(), reason=f"needs the real clips {CLIPS} (COUNTERPOISE_DATA)")
@pytest.mark.filterwarnings("ignore:.*cannot be divided")
def test_real_clips_from_their_list_to_training_steps(tmp_path):
    """Lines of NVIDIA's own list, its frames as videos of the official layout, ``prepare``, and a recipe."""
    import av

    with np.load(CLIPS) as stored:
        rgb, depth, names = stored["rgb"], stored["depth"][..., None].repeat(3, -1), stored["path"].tolist()
    listed = (CLIPS.parent / "nvgesture_train_correct_cvpr2016_v2_mini.lst").read_text().splitlines()
    rows = {row.id: (row, line) for row, line in zip(parse_lines(listed, tmp_path), listed, strict=True)}
    names = [n.replace("\\", "/").removeprefix("./").removeprefix("Video_data/").strip("/") for n in names]
    people = sorted({rows[n][0].group for n in names})
    train, test = ([n for n in names if (rows[n][0].group in people[:2]) == held] for held in (False, True))
    assert len(train) > len(test) > 0
    root = tmp_path / "raw"
    for part, chosen in (("train", train[:6]), ("test", test[:2])):
        (root / "Video_data" / "flow_data" / part).mkdir(parents=True)
        lines = [rows[n][1] + "\n" for n in chosen]
        (root / f"nvgesture_{part}_correct_cvpr2016_v2.lst").write_text("".join(lines))
        for place, name in enumerate(chosen):
            i = names.index(name)
            for sensor, frames in (("color", rgb[i]), ("depth", depth[i])):
                _, start, end = rows[name][0].facts[sensor].split(":")
                path = root / "Video_data" / name / f"sk_{sensor}.avi"
                path.parent.mkdir(parents=True, exist_ok=True)
                with av.open(str(path), "w") as container:
                    stream = container.add_stream("mjpeg", rate=30)
                    stream.width, stream.height, stream.pix_fmt = 80, 60, "yuvj420p"
                    for t in range(int(end)):
                        picture = frames[max(0, t - int(start)) * 16 // (int(end) - int(start))]
                        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                    container.mux(stream.encode())
            flow = horn_schunck(torch.from_numpy(rgb[i]).float().mean(-1).repeat_interleave(5, 0)[:80], skip=0)
            np.save(root / "Video_data" / "flow_data" / part / f"{place}.npy", flow.permute(2, 3, 1, 0).numpy())
    made = get("nvgesture").prepare(root, tmp_path / "out", progress=False)
    assert (made.counts, made.excluded) == ({"train": 6, "test": 2}, {})
    run, small = tmp_path / "run", {"size": 32, "count": 8, "test_count": 8}
    options = [f"--data.modalities.{m}.init_args.{k}={v}" for m in ("rgb", "depth", "flow") for k, v in small.items()]
    options += [f"--data.modalities.{m}.init_args.resize=36" for m in ("rgb", "depth")]
    options += [f"--encoders.{m}.init_args.weights=null" for m in ("rgb", "depth", "flow")]
    options += ["--data.init_args.group", "id"]  # both clips of a class are of one person, who could not be divided
    options += ["--epochs", "1", "--batch_size", "2", "--accelerator", "cpu", "--progress", "false"]
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(made.out / "joint.yaml"), *options, "--run_dir", str(run)])
    assert stop.value.code == 0
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 1


def parse_lines(listed: list[str], folder: Path):
    path = folder / "mini.lst"
    path.write_text("\n".join(listed))
    return parse(path, "train")
