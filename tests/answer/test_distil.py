"""``cp.distil``: a student of a trained model, what it learns from, what it keeps, and what is refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import counterpoise as cp
from counterpoise.answer.auto import Answer, auto
from counterpoise.answer.distil import distil, teach, teacher_of
from counterpoise.answer.kept import _share
from counterpoise.answer.student import Student, Taught, losses_to
from counterpoise.answer.words import sentences
from counterpoise.cli import main
from counterpoise.data import pad
from counterpoise.data.arrays import ArraySplit
from counterpoise.engine import SGD, loop
from counterpoise.engine.step import Step
from counterpoise.functional import distillation_losses, label_distillation_losses
from counterpoise.fusions import Late
from counterpoise.task import MultiLabel, Regression, SingleLabel
from counterpoise.types import Batch

FEW: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 16,
    "optimizer": SGD(lr=0.05),
    "encoders": {m: lambda: cp.encoders.MLP(3, (6,), 4) for m in "ab"},
}
RUNS = {"single-label": 2, "multi-label": 1, "regression": 1}
KINDS = tuple(RUNS)


@pytest.fixture(autouse=True)
def quick_page(monkeypatch):
    monkeypatch.setattr("counterpoise.answer.evidence._spread", lambda pool, val: {})
    monkeypatch.setattr("counterpoise.answer.page._pictures", lambda evidence: [])


def arrays(n, seed, kind):
    rng, y = np.random.default_rng(seed), np.arange(n) // 6 % 3
    values = {
        "single-label": np.array(["x", "y", "z"])[y],
        "multi-label": np.eye(3, dtype=int)[y],
        "regression": y * 9.0,
    }
    return {m: (np.eye(3)[y] + 0.5 * rng.normal(size=(n, 3))).astype("float32") for m in "ab"}, values[kind]


def data(kind="single-label", n=90, **more):
    split = np.array((["train"] * 3 + ["val"] + ["test"] * 2) * (n // 6))[:n]
    inputs, y = arrays(n, 0, kind)
    return cp.from_arrays(inputs, y, split=split, task=kind, **more)


def more_samples(n=24):
    return arrays(n, 1, "single-label")[0]


@pytest.fixture(scope="module")
def teachers() -> dict[str, Answer]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("counterpoise.answer.evidence._spread", lambda pool, val: {})
        return {kind: auto(data(kind), runs=RUNS[kind], **FEW) for kind in KINDS}


# -- the losses ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_losses_are_those_of_the_equations(temperature):
    rng = np.random.default_rng(0)
    f, t = rng.normal(size=(5, 4)) * 3, rng.normal(size=(5, 4)) * 3

    def softmax(u):
        return np.exp(u / temperature) / np.exp(u / temperature).sum(1, keepdims=True)

    def sigmoid(u):
        return 1 / (1 + np.exp(-u / temperature))

    p, q, yes, told = softmax(f), softmax(t), sigmoid(f), sigmoid(t)
    binary = told * np.log(told / yes) + (1 - told) * np.log((1 - told) / (1 - yes))
    expected = {
        SingleLabel(4): temperature**2 * (q * np.log(q / p)).sum(1),
        MultiLabel(4): temperature**2 * binary.mean(1),
        Regression(["1", "2", "3", "4"]): ((f - t) ** 2).mean(1) / 2,
    }
    for task, values in expected.items():
        loss = {SingleLabel: distillation_losses, MultiLabel: label_distillation_losses}.get(type(task))
        u, v = torch.from_numpy(f), torch.from_numpy(t)
        if temperature == 1:
            np.testing.assert_allclose(losses_to(task, u, v).numpy(), values, rtol=1e-10)
        if loss is not None:
            np.testing.assert_allclose(loss(u, v, temperature).numpy(), values, rtol=1e-10)


def test_nothing_is_lost_where_the_student_says_what_the_teacher_says():
    u = torch.randn(4, 3, dtype=torch.float64) * 50
    for task in (SingleLabel(3), MultiLabel(3), Regression(["1", "2", "3"])):
        assert losses_to(task, u, u).abs().max() < 1e-12


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_follows_the_teacher_in_every_head(kind, teachers):
    taught = teach(teacher_of(teachers[kind]), data(kind), more_samples())
    model = cp.build_model({m: nn.Linear(3, 4) for m in "ab"}, "Late", task=taught.task, example=taught.train)
    trainer = cp.Trainer(model, Student(weight=0.5), batch_size=16, progress=False)
    trainer.check(taught.train)
    run, rows = trainer.current, torch.tensor([0, 50, 3, 60])
    x = {m: taught.train.batch(rows.tolist(), m, None) for m in "ab"}
    present = {"a": torch.tensor([True, False, True, True])}
    step = Step(run, Batch(x, taught.train.target[rows], rows, present, None), 0, 1)
    output = step.forward()
    assert isinstance(taught.train, Taught)
    told, student = taught.train.told[rows], trainer.method
    parts = {name: losses_to(taught.task, u, told) for name, u in output.unimodal.items()}
    alone = parts["a"][present["a"]].mean() + parts["b"].mean()
    expected = losses_to(taught.task, output.logits, told).mean() + 0.5 * alone
    torch.testing.assert_close(student.loss(output, step), expected)


# -- what it learns from -------------------------------------------------------------------------------
def test_samples_of_both_parts_are_read_in_the_order_asked_for():
    present = {"a": torch.tensor([True, False, True])}
    x, z = torch.arange(6.0).reshape(3, 2), torch.arange(4.0).reshape(2, 2) + 10
    first = ArraySplit({"a": x, "b": x + 100}, torch.tensor([0, 1, 1]), ["n", "p"], present=present)
    second = ArraySplit({"a": z, "b": z + 100}, torch.tensor([-1, -1]), ["n", "p"], ids=["u", "v"])
    told = torch.tensor([[0.0, 1], [1, 0], [0, 1], [3, 2], [2, 3]])
    taught = Taught([first, second], told, "t")
    assert (len(taught), taught.ids[-2:]) == (5, ["u", "v"])
    assert taught.target.tolist() == [0, 1, 1, 0, 1]
    assert taught.parts([0], "a", None) is None  # workers read batches whole
    assert taught.present is not None
    assert taught.present["a"].tolist() == [True, False, True, True, True]
    assert taught.batch([4, 0, 3], "a", None).tolist() == [z[1].tolist(), x[0].tolist(), z[0].tolist()]
    read = taught.read_together([1, 4], ["a", "b"], None, {"a": torch.tensor([False, True])})
    assert read["a"].tolist() == [[0, 0], z[1].tolist()]
    assert read["b"].tolist() == [(x[1] + 100).tolist(), (z[1] + 100).tolist()]
    assert taught.fingerprint() != Taught([first, second], told, "another").fingerprint()


def test_sequences_of_both_parts_are_collated():
    def of(lengths):
        samples = [{"a": torch.full((n, 2), float(n)), "label": n % 2} for n in [*lengths, 6, 6]]
        return cp.from_dataset(samples, collate={"a": pad}, split=["train"] * len(lengths) + ["val"] * 2).train

    taught = Taught([of([2, 3, 3]), of([5, 4])], torch.zeros(5, 2), "t")
    batch = taught.batch([3, 0], "a", None)
    assert batch.shape == (2, 5, 2)
    assert batch[:, :, 0].tolist() == [[5.0] * 5, [2.0, 2, 0, 0, 0]]


def test_true_labels_of_the_training_part_stay_and_those_of_others_are_decided():
    first = ArraySplit(
        {"a": torch.zeros(1, 2)}, torch.tensor([[5.0]], dtype=torch.float64), Regression(["r"], [1], [2])
    )
    second = ArraySplit({"a": torch.zeros(1, 2)}, torch.full((1, 1), torch.nan), first.task)
    taught = Taught([first, second], torch.tensor([[0.0], [3.0]]), "t")
    assert taught.target.tolist() == [[5.0], [7.0]]
    labels = MultiLabel(["l", "m"])
    first = ArraySplit({"a": torch.zeros(1, 2)}, torch.tensor([[1.0, 0]]), labels)
    taught = Taught([first, first], torch.tensor([[1.0, -1], [-1, 1]]), "t")
    assert taught.target.tolist() == [[1, 0], [0, 1]]


# -- the student ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
def test_every_task_has_students_that_are_runs_like_any_other(kind, teachers, tmp_path):
    found = distil(teachers[kind], data(kind), unlabelled=more_samples(), run_dir=tmp_path / "run", **FEW)
    student, kept = found.trainer.method, found.result["teacher"]
    assert isinstance(student, Student)
    assert (student.patience, student.joint, found.trainer.current.sam) == (5, True, 0.05)
    assert kept["unlabelled"] == 24
    assert set(kept["scores"]) == {"teacher", "student", *(["one run"] if RUNS[kind] > 1 else [])}
    key = f"fused/{found.trainer.monitor}"
    assert kept["scores"]["student"] == {part: found.result[part][key] for part in ("val", "test")}
    assert kept["scores"]["teacher"]["test"] == pytest.approx(teachers[kind].result["test"][key])
    size = kept["cost"]["teacher"]["parameters"] / kept["cost"]["student"]["parameters"]
    assert size == pytest.approx(RUNS[kind], rel=0.1)
    assert found.evidence.cost["milliseconds a sample"] == kept["cost"]["student"]["milliseconds a sample"]
    shares = {share: "held on to" in " ".join(sentences(replace(found.evidence, trust=share))) for share in (4e-4, 0.1)}
    assert shares == {4e-4: False, 0.1: True}
    name = "auto, 2 runs" if RUNS[kind] > 1 else "auto"
    assert f"its teacher ({name})" in str(found)
    written = json.loads((tmp_path / "run" / "result.json").read_text())
    assert written["teacher"]["teacher"] == name
    loaded = cp.load(tmp_path / "run")
    test = data(kind).test
    assert test is not None
    assert loaded.evaluate(test)[key] == pytest.approx(found.result["test"][key])
    card = (loaded.save_pretrained(tmp_path / "folder") / "README.md").read_text()
    assert f"student of {name}" in card


def test_it_learns_what_the_teacher_says_and_not_the_labels():
    splits = data()
    told = 8.0 * nn.functional.one_hot((splits.train.target + 1) % 3, 3)
    splits.val.target = (splits.val.target + 1) % 3
    torch.manual_seed(0)
    model = cp.build_model({m: cp.encoders.MLP(3, (6,), 4) for m in "ab"}, "WideDeep", task=splits.task, heads=True)
    trainer = cp.Trainer(model, Student(), epochs=25, batch_size=16, optimizer=SGD(lr=0.05), progress=False)
    trainer.fit(Taught([splits.train], told, "t"), splits.val)
    assert trainer.evaluate(splits.val)["fused/accuracy"] > 0.8


def test_it_resumes_and_ends_the_same(teachers, tmp_path, monkeypatch):
    teacher = teachers["single-label"]
    whole = distil(teacher, data(), unlabelled=more_samples(), **FEW)
    epoch_end = Student.on_epoch_end

    def dies(self, *args):
        epoch_end(self, *args)
        if args[0].epoch == 1:
            raise RuntimeError("killed")

    monkeypatch.setattr(Student, "on_epoch_end", dies)
    with pytest.raises(RuntimeError, match="killed"):
        distil(teacher, data(), unlabelled=more_samples(), run_dir=tmp_path, **FEW)
    monkeypatch.setattr(Student, "on_epoch_end", epoch_end)
    again = distil(teacher, data(), unlabelled=more_samples(), run_dir=tmp_path, resume=True, **FEW)
    for a, b in zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_test_samples_are_not_read_before_training_is_over(teachers, monkeypatch):
    splits, events, fit = data(), [], loop.fit
    test = splits.test
    assert test is not None
    read = type(test).read_together

    def notes(self, *args):
        events.extend(["test"] if self is test else [])
        return read(self, *args)

    def ends(*args, **kwargs):
        fit(*args, **kwargs)
        events.append("trained")

    monkeypatch.setattr(type(test), "read_together", notes)
    monkeypatch.setattr(loop, "fit", ends)
    distil(teachers["single-label"], splits, unlabelled=more_samples(), **FEW)
    assert events[0] == "trained"
    assert "test" in events


@pytest.mark.parametrize(
    ("metric", "teacher", "student", "one", "share"),
    [("accuracy", 0.9, 0.85, 0.8, 0.5), ("rmse", 1.0, 1.75, 2.0, 0.25), ("accuracy", 0.8, 0.9, 0.8, None)],
)
def test_the_share_of_the_gain(metric, teacher, student, one, share):
    got = _share(metric, {"teacher": teacher, "student": student, "one run": one})
    assert got == (None if share is None else pytest.approx(share))
    assert _share(metric, {"teacher": teacher, "student": student}) is None


# -- what is refused -----------------------------------------------------------------------------------
def refused(teacher, splits, match, **more):
    with pytest.raises(ValueError, match=match):
        distil(teacher, splits, **more, epochs=10**9)


def test_teachers_that_do_not_fit(teachers):
    teacher, (inputs, y) = teachers["single-label"], arrays(90, 0, "single-label")
    renamed = cp.from_arrays({"a": inputs["a"], "c": inputs["b"]}, y)
    refused(teacher, renamed, "has the modalities a, b; the data have a, c")
    refused(teacher, cp.from_arrays(inputs, np.array(["x", "y", "q"])[np.arange(90) // 6 % 3]), "same classes, in the")
    refused(teachers["regression"], data(), r"predicts .* \(regression\); the data have")
    wider = cp.from_arrays({"a": inputs["a"], "b": np.ones((90, 5), "float32")}, y)
    refused(teacher, wider, r"reads 'b' otherwise than the data do: shape \[3\] and \[5\]")
    with pytest.raises(TypeError, match="teacher must be a trained model"):
        distil(teacher.trainer, data())  # pyright: ignore[reportArgumentType]


def test_samples_that_cannot_be_learned_from(teachers, tmp_path):
    teacher, splits, rows = teachers["single-label"], data(), more_samples(4)
    assert splits.test is not None
    nothing = [{"a": rows["a"][0], "b": rows["b"][0]}, {"a": None, "b": None}]
    refused(teacher, splits, "1 of 2 unlabelled samples have none of the modalities .* '1'", unlabelled=nothing)
    refused(teacher, splits, "these are the test samples of the data set", unlabelled=splits.test)
    refused(teacher, splits, "One part of the data set is needed here", unlabelled=splits)
    refused(teacher, splits, "there are no samples", unlabelled=splits.train.subset([]))
    refused(
        teacher,
        splits,
        "there is no modality 'b'",
        unlabelled=ArraySplit({"a": torch.zeros(3, 3)}, torch.zeros(3), splits.task),
    )
    refused(teacher, splits, "unknown modality 'c'|no modality 'c'|'c'", unlabelled={"c": rows["a"]})


def test_labels_of_samples_without_labels_are_not_used_and_that_is_said(teachers):
    pandas = pytest.importorskip("pandas")
    rows = more_samples(12)
    frame = pandas.DataFrame({"a": list(rows["a"]), "b": list(rows["b"]), "label": ["?"] * 12})
    teacher, splits = teacher_of(teachers["single-label"]), data()
    with pytest.warns(UserWarning, match="the column 'label' is not used"):
        from_frame = teach(teacher, splits, frame)
    from_columns = teach(teacher, splits, rows)
    assert torch.equal(from_frame.train.told, from_columns.train.told)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.warns(UserWarning, match="its targets are not used"):
        teach(
            teacher,
            splits,
            ArraySplit({m: torch.from_numpy(x) for m, x in rows.items()}, torch.zeros(12).long(), splits.task),
        )


def test_samples_of_an_npz_file(teachers, tmp_path):
    teacher, rows = teacher_of(teachers["single-label"]), more_samples(12)
    np.savez(tmp_path / "more.npz", y=np.zeros(12), a=rows["a"], b=rows["b"])
    with pytest.warns(UserWarning, match="y are not used"):
        from_file = teach(teacher, data(), tmp_path / "more.npz")
    assert torch.equal(from_file.train.told, teach(teacher, data(), rows).train.told)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(FileNotFoundError, match="unlabelled: there is no file"):
        teach(teacher, data(), tmp_path / "none.npz")


def test_the_command_says_what_a_teacher_from_python_lacks(teachers, tmp_path, capsys):
    auto(data(), run_dir=tmp_path / "run", **FEW)
    with pytest.raises(SystemExit) as ended:
        main(["distil", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert "was trained from Python" in capsys.readouterr().err


def test_the_method_alone_says_how_it_is_trained():
    model = cp.build_model({m: nn.Linear(3, 4) for m in "ab"}, Late, num_classes=3, example=data().train)
    with pytest.raises(ValueError, match=r"cp\.distil"):
        cp.Trainer(model, Student(), epochs=1, batch_size=16, progress=False).run(data())


def test_the_command_wants_the_teacher_first(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["distil", "--data=digits"])
    assert ended.value.code == 2
    assert "The teacher comes first" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.filterwarnings("default:unlabelled")
def test_the_command_distils_several_runs_of_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("mine", 0), ("more", 1)):
        inputs, y = arrays(90, seed, "single-label")
        lines = []
        for i, (a, b, label) in enumerate(zip(inputs["a"], inputs["b"], y, strict=True)):
            words = " ".join("rgb"[column] for column in b.argsort())
            lines.append(",".join([*(f"{v:.3f}" for v in a), f"{words} of number {i}", label]))
        (tmp_path / f"{name}.csv").write_text("\n".join(["a1,a2,a3,words,label", *lines]) + "\n")

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([*arguments])
        assert ended.value.code == 0
        return capsys.readouterr()

    few = ["--epochs=1", "--batch_size=16", "--progress=false", "--optimizer.lr=0.05"]
    run("auto", "--data=mine.csv", "--runs=2", "--run_dir=teacher", *few)
    assert "the test split of mine" in run("evaluate", "teacher").out
    said = run("distil", "teacher", "--unlabelled=more.csv")
    assert "and 90 without labels; teacher says what to learn" in said.out
    assert "the column 'label' is not used" in said.err
    assert "its teacher (teacher)" in said.out
    folder = tmp_path / "runs" / "mine-student-s0"
    run("report", str(folder))
    assert "student" in (folder / "report.html").read_text()
    assert "teacher: teacher" in (folder / "config.yaml").read_text()
    run("evaluate", str(folder))
    run("predict", str(folder), "more.csv", "--out=p.csv")
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 91
