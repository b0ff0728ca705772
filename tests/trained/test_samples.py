"""What users hold in their hands goes in, and what cannot is refused with the reason."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import trained

import counterpoise as cp
from counterpoise.data import Table, Tabular, Text, pad, write_digits
from counterpoise.encoders import CNN, MLP, SequenceGRU
from counterpoise.methods import Joint, Unimodal
from counterpoise.trained.intake import typed
from counterpoise.trained.page import sample_of

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of the embedded digits, and a run on them in memory."""
    root = tmp_path_factory.mktemp("digits")
    write_digits(root, size=100)
    data = cp.digits(size=100)
    model = cp.build_model({"audio": CNN(1, 8), "image": CNN(1, 8)}, "Late", task=data.task)
    cp.Trainer(model, Joint(), epochs=1, batch_size=16, run_dir=root / "run", progress=False).run(data)
    return root


@pytest.fixture(scope="module")
def model(digits: Path) -> cp.TrainedModel:
    return cp.load(digits / "run")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> cp.TrainedModel:
    """Trained on tensors, without readers."""
    path = tmp_path_factory.mktemp("vectors") / "run"
    trained(path)
    return cp.load(path)


def test_every_form_of_the_same_samples_gives_the_same(digits: Path, model: cp.TrainedModel, monkeypatch: Any) -> None:
    table = digits / "digits.csv"
    frame = pd.read_csv(table)
    files = {m: frame[m].tolist() for m in ("audio", "image")}
    wanted = model.predict_proba(table)
    assert wanted.shape == (100, 10)
    assert np.array_equal(model.predict_proba(frame, root=digits), wanted)
    assert np.array_equal(model.predict_proba(files, root=digits), wanted)
    rows = [dict(zip(files, values, strict=True)) for values in zip(*files.values(), strict=True)]
    assert np.array_equal(model.predict_proba(rows, root=digits), wanted)
    monkeypatch.chdir(digits)
    assert np.array_equal(model.predict_proba(rows), wanted)
    tensors = {m: torch.stack([model.reader(m).read(str(digits / f)) for f in files[m]]) for m in files}
    assert np.array_equal(model.predict_proba(tensors), wanted)
    arrow = pytest.importorskip("pyarrow").Table.from_pandas(frame)
    assert np.array_equal(model.predict_proba(arrow), wanted)
    said = model.predict(table)
    assert said.tolist() == [str(best) for best in wanted.argmax(1)]
    assert model.predict(rows[0]) == said[0]
    assert model.classes_.tolist() == list("0123456789")
    assert model.predict(rows[:3]).shape == (3,)


def test_values_in_memory_go_through_the_reader(digits: Path, model: cp.TrainedModel) -> None:
    from PIL import Image

    file = next((digits / "image").glob("0003.*"))
    wanted = model.predict_proba({"image": str(file)})
    picture = Image.open(file)
    for same in (picture, np.asarray(picture), file.read_bytes()):
        assert np.array_equal(model.predict_proba({"image": same}), wanted), type(same)
    several = model.predict_proba({"image": [picture, str(file)]})
    assert np.array_equal(*several)


def test_what_is_absent_may_be_left_out(digits: Path, model: cp.TrainedModel, tmp_path: Path) -> None:
    sound = str(digits / "audio" / "0000.wav")
    wanted = model.predict_proba([{"audio": sound}, {}, {"audio": sound}][::2])[0]
    ways = [None, "", " ", float("nan"), pd.NA]
    for way in ways:
        assert np.array_equal(model.predict_proba([{"audio": sound, "image": way}] * 2)[0], wanted)
    frame = pd.DataFrame({"audio": [sound, None], "image": [np.nan, np.nan]})
    found = model.predict_proba(frame)
    assert found[0] == pytest.approx(wanted, abs=1e-6)  # alone in its batch it may round otherwise
    assert np.isnan(found[1]).all()
    assert model.predict(frame).tolist()[1] is None
    (tmp_path / "t.csv").write_text(f"audio,image\n{sound},\n{sound},\n")
    assert np.array_equal(model.predict_proba(tmp_path / "t.csv")[0], wanted)


def test_votes_add_up_and_absent_modalities_have_no_share(digits: Path, model: cp.TrainedModel) -> None:
    sample = {m: str(next((digits / m).glob("0003.*"))) for m in ("audio", "image")}
    found = model.predict(sample, explain=True)
    fused = model.predict_proba(sample)
    assert found.answer == model.predict(sample)
    assert list(found.probabilities.values()) == pytest.approx(fused.tolist())
    one = {m: model.predict_proba({m: path}) for m, path in sample.items()}
    best = int(fused.argmax())
    value = {"": 0.1, "audio": one["audio"][best], "image": one["image"][best], "both": fused[best]}
    shares = {  # by hand, of two players
        m: ((value[m] - value[""]) + (value["both"] - value[other])) / 2
        for m, other in (("audio", "image"), ("image", "audio"))
    }
    for m, vote in found.votes.items():
        assert vote.share == pytest.approx(shares[m], abs=1e-5)
        assert list(vote.probabilities.values()) == pytest.approx(one[m].tolist(), abs=1e-6)
    assert found.score == pytest.approx(value["both"] - 0.1, abs=1e-5)
    (alone,) = model.predict([{"audio": sample["audio"]}], explain=True)
    assert (alone.votes["image"].answer, alone.votes["image"].probabilities) == (None, None)
    assert alone.votes["image"].share == pytest.approx(0, abs=1e-9)
    assert alone.votes["audio"].share == pytest.approx(alone.score)


def test_features(digits: Path, model: cp.TrainedModel) -> None:
    sample = {m: str(next((digits / m).glob("0003.*"))) for m in ("audio", "image")}
    one, several = model.embed(sample), model.embed([sample, {"audio": sample["audio"]}])
    assert {name: z.shape for name, z in one.items()} == {"audio": (8,), "image": (8,), "fused": (16,)}
    assert np.array_equal(one["fused"], np.concatenate([one["audio"], one["image"]]))
    assert several["image"].shape == (2, 8)
    assert np.isnan(several["image"][1]).all()
    assert np.isfinite(several["fused"]).all()


@pytest.mark.parametrize("fusion", ["Gated", "FiLM", "Attention"])
def test_fused_features_are_what_the_logits_are_linear_in(fusion: str, tmp_path: Path) -> None:
    trained(tmp_path / "r", fusion=fusion)
    model = cp.load(tmp_path / "r")
    x = {m: np.ones((3, 6), np.float32) for m in ("first", "second")}
    layer = model.trainer.model.fusion.get_submodule("classify")
    with torch.no_grad():
        logits = layer(torch.from_numpy(model.embed(x)["fused"]))
    assert np.allclose(logits.softmax(1).numpy(), model.predict_proba(x), atol=1e-6)


def test_only_what_the_method_reads_is_needed(tmp_path: Path) -> None:
    trained(tmp_path / "r", lambda: Unimodal("second"))
    model = cp.load(tmp_path / "r")
    assert model.modalities == ("second",)
    assert model.predict({"second": np.ones((2, 6), np.float32)}).shape == (2,)


def test_columns_of_numbers_and_categories(tmp_path: Path) -> None:
    rows = [("ab"[i % 2], 20 + i, "fm"[i % 3 > 0], f"word{i % 3}") for i in range(60)]
    frame = pd.DataFrame(rows, columns=["label", "age", "sex", "note"])
    frame.to_csv(tmp_path / "t.csv", index=False)
    readers = {"who": Tabular(["age", "sex"]), "note": Text(length=2, vocabulary=20)}
    data = Table(tmp_path / "t.csv", readers).splits()
    trainer = cp.Trainer(cp.build_model(data), Joint(), epochs=1, batch_size=16, run_dir=tmp_path / "r", progress=False)
    trainer.run(data)
    (tmp_path / "t.csv").rename(tmp_path / "gone.csv")
    model = cp.load(tmp_path / "r")
    wanted = trainer.model.task.predictions(trainer.predict(data.test).fused).numpy()
    test = frame.iloc[[int(i) - 1 for i in data.test.ids]]
    assert np.array_equal(model.predict_proba(test), wanted)
    first = test.iloc[0]
    one = {"age": float(first.age), "sex": first.sex, "note": first.note}
    same = [one, {"who": {"age": first.age, "sex": first.sex}, "note": first.note}]
    assert model.predict_proba(same)[1] == pytest.approx(model.predict_proba(one), abs=1e-6)
    assert np.array_equal(*model.predict_proba([{"note": "word1", "who": {"age": None, "sex": ""}}, {"note": "word1"}]))
    assert model.evaluate(tmp_path / "gone.csv") == trainer.evaluate(Table(tmp_path / "gone.csv", data.test.readers,
                                                                            task=data.task).samples())  # fmt: skip
    with pytest.raises(ValueError, match=r"has no column 'sex'; its columns are label, age, note"):
        model.predict(frame.drop(columns="sex"))
    with pytest.raises(ValueError, match=r"sample 0, 'who': Unknown column 'agee'\. Did you mean 'age'"):
        model.predict({"who": {"agee": 3}})
    with pytest.raises(TypeError, match=r"sample 0, 'who': it is read from the columns age, sex, as a dict; got 3"):
        model.predict({"who": 3})
    assert sample_of(model, ['{"age": 71}', ""]) == {"who": {"age": 71}}
    with pytest.raises(ValueError, match=r"who takes its columns, as .*; got '71'"):
        sample_of(model, ["71", "word1"])
    with pytest.raises(ValueError, match="at least one modality"):
        sample_of(model, [None, ""])


NO_FILE = {"audio": "nowhere.wav"}


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        ({"sound": "a.wav"}, ValueError, r"Unknown modality 'sound'\..*Known: audio, image"),
        ([{"audio": None}, {"video": "b"}], ValueError, r"Unknown modality 'video'"),
        ({}, ValueError, "at least one of the modalities audio, image; got an empty dict"),
        ([], ValueError, "There are no samples in an empty list"),
        (3, TypeError, r"Samples come as a dict with one sample.*a DataFrame.*; got int"),
        ("nowhere.csv", FileNotFoundError, "There is no table nowhere.csv"),
        (NO_FILE, ValueError, r"sample 0, 'audio': nowhere\.wav: no such file"),
        ([{}, NO_FILE][1:], ValueError, r"sample 0, 'audio': nowhere\.wav"),
        ({"audio": 3.5}, ValueError, r"sample 0, 'audio': a float: Audio takes .*; got a float"),
        ({"audio": torch.zeros(3)}, ValueError, r"sample 0, 'audio': a tensor of shape \(3,\); a sample has shape \(1"),
        (
            {"audio": torch.full((1, 65, 17), torch.nan)},
            ValueError,
            "a tensor with NaN or infinity; leave it out",
        ),
        ({"image": torch.zeros(1, 8, 8, dtype=torch.uint8)}, TypeError, r"uint8 where.*scale it as in training"),
        ({"audio": ["a.wav"], "image": "b.png"}, ValueError, "here 'image' holds one value and 'audio' several"),
        (
            {"audio": ["a.wav"], "image": ["b", "c"]},
            ValueError,
            "Columns must be of one length; got audio: 1, image: 2",
        ),
        (pd.DataFrame({"audio": ["a.wav"]}), ValueError, r"has no column 'image'; its columns are audio"),
        (pd.DataFrame([["a", "b"]], columns=["audio", "audio"]), ValueError, "has a column twice"),
    ],
)
def test_what_cannot_be_a_sample_is_refused(
    data: Any, kind: Any, said: str, model: cp.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(kind, match=said):
        model.predict(data)


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        (np.zeros(5), ValueError, r"'first': ndarray of shape \(5,\); a sample has shape \(6,\)"),
        (object(), TypeError, r"trained on tensors of shape \(6,\), without a reader.*got object"),
        ([1.0, "x"] * 3, TypeError, "so it takes arrays of numbers"),
        ("nowhere.npy", ValueError, r"nowhere\.npy: no such file"),
    ],
)
def test_arrays_without_a_reader(value: Any, kind: type, said: str, vectors: cp.TrainedModel) -> None:
    with pytest.raises(kind, match=said):
        vectors.predict([{"first": value}])


def test_arrays_without_a_reader_come_in_every_form(vectors: cp.TrainedModel, tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float64) / 6
    np.save(tmp_path / "x.npy", x)
    wanted = vectors.predict_proba({"first": x})
    for same in (x.tolist(), torch.from_numpy(x), x.astype(np.float32), str(tmp_path / "x.npy"), tmp_path / "x.npy"):
        assert np.array_equal(vectors.predict_proba({"first": same}), wanted)
    assert np.array_equal(vectors.predict_proba({"first": x[None]}), wanted[None])


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    from counterpoise.encoders import TextBag

    tokens, y = np.arange(240).reshape(60, 4) % 9, np.arange(60) % 2
    data = cp.from_arrays({"text": tokens, "steps": np.ones((60, 5, 3))}, [f"c{k}" for k in y])
    built = cp.build_model({"text": TextBag(9, 8), "steps": SequenceGRU(3, 8)}, task=data.task)
    cp.Trainer(built, Joint(), epochs=1, batch_size=16, run_dir=tmp_path / "r", progress=False).run(data)
    model = cp.load(tmp_path / "r")
    assert model.predict({"text": tokens[:2], "steps": np.ones((2, 5, 3))}).shape == (2,)
    with pytest.raises(TypeError, match=r"float64 where the model was trained on whole numbers \(torch.int64\)"):
        model.predict({"text": np.zeros(4)})


def test_a_column_alone_is_typed_as_it_is() -> None:
    assert typed(Tabular(["age"]), "71") == "71"
    assert typed(Tabular(["age"]), '{"age": 71}') == {"age": 71}
    assert typed(None, '{"age": 71}') == '{"age": 71}'


def test_what_makes_a_batch_and_is_no_function_is_left_out(tmp_path: Path) -> None:
    rows = [{"steps": torch.randn(3 + i % 2, 3), "other": torch.randn(4), "label": "ab"[i % 2]} for i in range(40)]
    data = cp.from_dataset(rows, collate={"steps": partial(pad)})
    built = cp.build_model({"steps": SequenceGRU(3, 8), "other": MLP(4)}, task=data.task)
    cp.Trainer(built, Joint(), epochs=1, batch_size=8, run_dir=tmp_path / "r", progress=False).run(data)
    model = cp.load(tmp_path / "r")
    assert model.predict({m: rows[0][m] for m in ("steps", "other")}) in ("a", "b")
    with pytest.raises(ValueError, match=r"sample 1, 'steps': it has shape \(4, 3\)"):
        model.predict([{m: row[m] for m in ("steps", "other")} for row in rows[:2]])


def test_samples_of_different_lengths(tmp_path: Path) -> None:
    rows = [{"steps": torch.randn(3 + i % 4, 3), "other": torch.randn(4), "label": "ab"[i % 2]} for i in range(60)]
    data = cp.from_dataset(rows, collate={"steps": pad})
    built = cp.build_model({"steps": SequenceGRU(3, 8), "other": MLP(4)}, task=data.task)
    trainer = cp.Trainer(built, Joint(), epochs=1, batch_size=16, run_dir=tmp_path / "r", progress=False)
    trainer.run(data)
    model = cp.load(tmp_path / "r")
    test = [rows[int(i)] for i in data.test.ids]
    samples = [{m: row[m] for m in ("steps", "other")} for row in test]
    wanted = trainer.model.task.predictions(trainer.predict(data.test).fused).numpy()
    assert np.array_equal(model.predict_proba(samples), wanted)
    columns = {m: [row[m] for row in samples] for m in ("steps", "other")}
    assert np.array_equal(model.predict_proba(columns), wanted)
    assert model.predict(samples[0]) in ("a", "b")
    again = cp.load(model.save_pretrained(tmp_path / "f"))
    assert np.array_equal(again.predict_proba(samples), wanted)


def test_labels_are_needed_to_evaluate(model: cp.TrainedModel) -> None:
    with pytest.raises(ValueError, match=r"Labels are read from tables .*, or come with a split; got dict"):
        model.evaluate({"audio": "a.wav"})
