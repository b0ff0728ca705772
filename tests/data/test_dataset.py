"""Any map-style data set becomes splits: what is taken, what is refused, and in which words."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import counterpoise as cp
from counterpoise.data import Array, ReadError, Text, from_arrays, from_dataset, pad
from counterpoise.methods import Joint
from counterpoise.testing import DIM, assert_same, everything, tiny_model

N = 90
Y = np.arange(N) % 3


def features(n: int = N) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(n) % 3
    return {
        m: torch.nn.functional.one_hot(y, DIM) * 2.0 + torch.randn(n, DIM, generator=generator)
        for m in ("first", "second")
    }


class Dicts(Dataset):
    """Dicts of tensors; what is in ``absent`` is None in every third sample, or not there at all."""

    def __init__(self, n: int = N, absent: bool = False):
        self.inputs, self.absent, self.reads = features(n), absent, 0

    def __len__(self) -> int:
        return len(self.inputs["first"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.reads += 1
        sample: dict[str, Any] = {m: x[index] for m, x in self.inputs.items()}
        if self.absent and index % 3 == 1:
            sample["second"] = None
        elif self.absent and index % 5 == 2:
            del sample["second"]
        return {**sample, "label": int(Y[index])}


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor
    label: str


def trained(data: cp.Splits, **options: Any) -> dict[str, torch.Tensor]:
    settings = {"epochs": 2, "batch_size": 18, "progress": False, "accelerator": "cpu", **options}
    trainer = cp.Trainer(tiny_model(Joint(), ("first", "second")), Joint(), **settings)
    trainer.fit(data.train, data.val)
    return everything(trainer)


def test_dicts_train_as_the_same_arrays():
    assert_same(trained(from_dataset(Dicts())), trained(from_arrays(features(), Y)))


def test_what_is_none_or_missing_is_absent():
    gone = np.array([i % 3 == 1 or i % 5 == 2 for i in range(N)])
    data = from_dataset(Dicts(absent=True))
    expected = from_arrays(features(), Y, present={"second": ~gone})
    assert data.train.present is not None
    assert expected.train.present is not None
    assert torch.equal(data.train.present["second"], expected.train.present["second"])
    assert set(data.train.present) == {"second"}
    rows = range(len(data.train))
    assert torch.equal(data.train.batch(rows, "second", None), expected.train.batch(rows, "second", None))
    lost = (~data.train.present["second"]).nonzero().flatten().tolist()
    assert not data.train.batch(lost, "second", None).any()
    assert_same(trained(data), trained(expected))


FORMS = {
    "tuples": (lambda i, x: (x["first"][i], int(Y[i]), x["second"][i]), {"names": ("first", "label", "second")}),
    "a pair of dict and label": (lambda i, x: ({m: v[i] for m, v in x.items()}, torch.tensor(Y[i])), {}),
    "named tuples": (lambda i, x: Pair(x["first"][i], x["second"][i], str(Y[i])), {}),
    "arrays": (lambda i, x: {**{m: v[i].double().numpy() for m, v in x.items()}, "label": Y[i]}, {}),
    "lists": (lambda i, x: {**{m: v[i].tolist() for m, v in x.items()}, "label": np.array(Y[i])}, {}),
    "more than is named": (
        lambda i, x: {**{m: v[i] for m, v in x.items()}, "label": bool(Y[i] == 1), f"note {i}": "text"},
        {"modalities": ("first", "second")},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_samples(form: str):
    make, options = FORMS[form]
    inputs = features()
    data = from_dataset([make(i, inputs) for i in range(N)], **options)
    y = Y == 1 if form == "more than is named" else Y
    expected = from_arrays(inputs, y)
    assert data.modalities == ("first", "second")
    assert data.classes == expected.classes
    for part, other in ((data.train, expected.train), (data.val, expected.val), (data.test, expected.test)):
        assert part is not None
        assert other is not None
        assert list(part.ids) == list(other.ids)
        assert torch.equal(part.target, other.target)
        for m in inputs:
            assert torch.equal(part.batch([1, 0], m, 3), other.batch([1, 0], m, 3))


def test_a_lone_number_is_a_vector_of_one():
    data = from_dataset([{"age": i, "weight": i / 2, "label": i % 2} for i in range(20)], test=0)
    rows = [int(i) for i in data.train.ids[:2]]
    assert data.train.batch([0, 1], "age", None).tolist() == [[float(i)] for i in rows]
    assert data.train.batch([0, 1], "weight", None).tolist() == [[i / 2] for i in rows]
    assert data.train.batch([0], "age", None).dtype == torch.float32


def test_token_numbers_stay():
    data = from_dataset([{"text": torch.tensor([i, 1]), "label": i % 2} for i in range(20)])
    assert data.train.batch([0], "text", None).dtype == torch.int64


def test_labels_known_beforehand_need_no_look_at_the_samples():
    known, found = Dicts(), Dicts()
    data = from_dataset(known, labels=torch.from_numpy(Y), present={})
    assert known.reads == 1  # the first, for the names
    assert torch.equal(data.train.target, from_dataset(found).train.target)
    assert found.reads == 1 + N
    assert data.train.fingerprint() == from_dataset(found).train.fingerprint()


def test_targets_are_labels():
    class Targets(Dicts):
        targets = (2 - Y).tolist()

    samples = Targets()
    data = from_dataset(samples, present={})
    assert samples.reads == 1
    assert data.train.target.tolist() == [2 - Y[int(i)] for i in data.train.ids]


def test_other_targets():
    inputs = features()
    names = [set(), {"joy"}, {"joy", "fear"}]
    several = from_dataset([{"x": inputs["first"][i], "label": names[Y[i]]} for i in range(N)], task="multi-label")
    expected = from_arrays({"x": inputs["first"]}, [names[i] for i in Y], task="multi-label")
    assert several.classes == ("fear", "joy")
    assert torch.equal(several.train.target, expected.train.target)
    numbers = from_dataset(
        [{"x": inputs["first"][i], "price": i / 3} for i in range(N)], label="price", task="regression"
    )
    other = from_arrays({"x": inputs["first"]}, np.arange(N) / 3, task="regression")
    assert numbers.task.names == ("price",)
    assert torch.equal(numbers.train.target, other.train.target)
    assert numbers.task.to_dict()["mean"] == other.task.to_dict()["mean"]


def test_split_group_and_weight_as_for_arrays():
    group, weight = np.arange(N) // 6, np.linspace(0.5, 2, N)
    split = ["train"] * 60 + ["dev"] * 15 + ["test"] * 15
    for options in ({"group": group, "val": 0.2, "seed": 3}, {"split": split}, {"test": 0.0}):
        options |= {"sample_weight": weight, "classes": ["a", "b", "c"]}
        for part in ("train", "val", "test"):
            with pytest.warns(UserWarning, match="'dev' is read as 'val'") if "split" in options else _quiet():
                one, two = (getattr(d(**options), part) for d in (_dataset, _arrays))
            assert (one is None) == (two is None) == (part == "test" and options.get("test") == 0)
            if one is not None:
                assert one.ids == two.ids
                assert one.classes == ("a", "b", "c")
                assert torch.equal(one.weight, two.weight)


def _quiet():
    import contextlib

    return contextlib.nullcontext()


def _dataset(**options: Any) -> cp.Splits:
    return from_dataset(Dicts(), **options)


def _arrays(**options: Any) -> cp.Splits:
    return from_arrays(features(), Y, **options)


def test_three_data_sets_stay_apart():
    class Part(Dicts):
        def __init__(self, start: int, n: int):
            super().__init__()
            self.start, self.n = start, n

        def __len__(self):
            return self.n

        def __getitem__(self, index: int):
            return super().__getitem__(index + self.start)

    sets = {"train": Part(0, 54), "validation": Part(54, 18), "test": Part(72, 18)}
    data = from_dataset(sets)
    assert data.test is not None
    assert [len(part) for part in (data.train, data.val, data.test)] == [54, 18, 18]
    assert data.val.ids[:2] == ["val/0", "val/1"]
    assert torch.equal(data.test.batch([17], "first", None)[0], features()["first"][89])
    two = from_dataset({"train": Part(0, 60), "test": Part(60, 30)}, val=0.2)
    assert two.test is not None
    assert [len(part) for part in (two.train, two.val, two.test)] == [48, 12, 30]
    weight = {"train": [1.0] * 54, "val": [2.0] * 18, "test": [3.0] * 18}
    stated = from_dataset(
        sets,
        labels={part: [i % 3 for i in range(len(w))] for part, w in weight.items()},
        present={"val": {"second": np.arange(18) > 0}},
        sample_weight=weight,
    )
    assert stated.val.weight is not None
    assert stated.val.weight.tolist() == weight["val"]
    assert stated.train.present is None
    assert stated.val.present is not None
    assert stated.val.present["second"].tolist() == [False] + [True] * 17
    named = from_dataset(sets, present={"validation": {"second": torch.arange(18) > 0}})
    assert named.val.present is not None
    assert named.val.present["second"].tolist() == [False] + [True] * 17
    with pytest.raises(
        ValueError, match=r"present\['second'\] must be \(54,\) booleans; got torch.bool of shape \(55,\)"
    ):
        from_dataset(sets, present={"train": {"second": np.ones(55, bool)}, "val": {"second": np.ones(17, bool)}})
    for wrong in ({"second": np.ones(90, bool)}, {"val": np.ones(18, bool)}, np.ones(90, bool)):
        with pytest.raises(ValueError, match=r"present must map data sets \(train, val, test\) to the masks of each"):
            from_dataset(sets, present=wrong)
    with pytest.raises(ValueError, match="labels must have an entry for each data set: train, val, test"):
        from_dataset(sets, labels={"train": [0] * 54})
    with pytest.raises(ValueError, match="split is not used"):
        from_dataset(sets, split=["train"] * N)
    with pytest.raises(ValueError, match="'dev' and 'val' both mean 'val'"):
        from_dataset({"train": Part(0, 60), "val": Part(60, 9), "dev": Part(69, 9)})


def ragged(n: int = 30, first: int = 3) -> list[dict[str, Any]]:
    return [{"text": torch.full((first + i % 4, 2), float(i + 1)), "label": i % 2} for i in range(n)]


def test_ragged_samples_are_named_and_padded():
    message = (
        r"sample 1, 'text': has shape \(4, 2\), and sample 0 \(3, 2\). Pass collate=\{'text': counterpoise.data.pad\}"
    )
    with pytest.raises(ReadError, match=message):
        from_dataset(ragged())
    data = from_dataset(ragged(), collate={"text": pad}, split=["train"] * 20 + ["val"] * 10)
    batch = data.train.batch([0, 3, 1], "text", None)
    assert batch.shape == (3, 6, 2)
    assert batch[:, :, 1].tolist() == [[1.0] * 3 + [0.0] * 3, [4.0] * 6, [2.0] * 4 + [0.0] * 2]
    again = from_dataset(ragged(), labels=[0, 1] * 15, present={}, split=["train"] * 20 + ["val"] * 10)
    with pytest.raises(ReadError, match=r"sample 1, 'text': has shape \(4, 2\), and sample 0 \(3, 2\)"):
        again.train.batch([0, 1], "text", None)


@pytest.mark.parametrize("collate", [lambda x: x, lambda x: torch.stack(x)[:1]])
def test_collate_must_make_one_tensor(collate: Any):
    data = from_dataset(ragged(4), collate={"text": collate}, split=["train"] * 2 + ["val"] * 2)
    with pytest.raises((ValueError, RuntimeError), match=r"collate\['text'\] must make one tensor \(2, ...\)|stack"):
        data.train.batch([0, 1], "text", None)


def test_readers_take_names_of_files_and_texts(tmp_path):
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", np.full((2, 3), i))
    samples = [
        {"x": None if i == 0 else str(tmp_path / f"{i}.npy"), "text": f"word{i}", "label": i % 2} for i in range(12)
    ]
    data = from_dataset(samples, readers={"x": Array(), "text": Text(length=4)}, split=["train"] * 6 + ["val"] * 6)
    assert data.train.batch([0, 2], "x", None)[:, 0, 0].tolist() == [0.0, 2.0]
    assert data.train.batch([1], "text", None).tolist() == [Text(length=4).read("word1").tolist()]
    assert from_dataset(samples, readers={"x": Array(), "text": Text(length=5)}).train.fingerprint() != (
        from_dataset(samples, readers={"x": Array(), "text": Text(length=4)}).train.fingerprint()
    )
    (tmp_path / "4.npy").unlink()
    with pytest.raises(ReadError, match=r"sample 4, 'x': no such file"):
        data.train.batch([3, 4], "x", None)


class Stream(IterableDataset):
    def __iter__(self):
        return iter([])


def labelled(*labels: Any) -> list[dict[str, Any]]:
    return [{"x": torch.zeros(2), "label": label} for label in labels]


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        (
            DataLoader(TensorDataset(torch.zeros(2))),
            {},
            r"a data set and not a DataLoader.*Pass loader.dataset, and Trainer\(batch_size",
        ),
        (Stream(), {}, r"a Stream only gives them one after another. Collect them.*from_dataset\(list\(ds\)\)"),
        ((x for x in [1]), {}, "a generator only gives them one after another"),
        (np.zeros((3, 2)), {}, r"dicts or tuples; got ndarray.*from_arrays"),
        ({"audio": np.zeros(3)}, {}, r"data set for each part.*got 'audio'. For arrays: from_arrays"),
        ([], {}, r"The data set \(list\) has no samples"),
        ([torch.zeros(2)] * 4, {}, "sample 0 must be a dict of named values, or a tuple with names=; got Tensor"),
        (TensorDataset(torch.zeros(4, 2), torch.zeros(4)), {}, r"sample 0 is a tuple of 2 values.*names=\('input1', "),
        (
            TensorDataset(torch.zeros(4, 2), torch.zeros(4)),
            {"names": ("x", "y", "z")},
            "names must say what they are, 3 of them",
        ),
        ([{"x": 1, "label": 0}], {"names": ("x", "label")}, "sample 0 must be a tuple, as names= says; got dict"),
        ([{"label": 1}] * 3, {}, "sample 0 has no modality: it holds 'label' only"),
        ([{"a.b": 1, "label": 1}] * 3, {}, "A modality cannot be called 'a.b'"),
        ([{"x": 1, "y": 1}] * 3, {}, r"sample 0 has no label 'label' \(it has 'x', 'y'\).*label=..., or pass labels="),
        ([{"x": 1, "labels": 1}] * 3, {}, "Did you mean 'labels'"),
        ([*labelled(0, 1), {"x": torch.zeros(2)}], {}, "sample 2 has no label 'label'"),
        (labelled(0, 1, {"mood": 1}), {}, "sample 2: its label 'label' must be the name or number.*got dict"),
        (labelled(0, None), {}, "sample 1 has no label"),
        (labelled(0, "one"), {}, "label must be all integers or all strings; sample 1 has 'one', sample 0 0"),
        (labelled(0.5, 1.5), {}, "label must be integers or strings; got float64. To predict numbers"),
        (labelled(0, 0, 0), {}, "label has one class only"),
        (labelled(0, 1), {"labels": [0, 1, 1]}, "labels must have one entry per sample: 2 samples, 3 entries"),
        (labelled(0, 1), {"present": {"y": [True, True]}}, "present: Unknown modality 'y'"),
        (labelled(0, 1), {"present": {"x": [1, 1]}}, r"present\['x'\] must be \(2,\) booleans"),
        (labelled(0, 1), {"readers": {"y": Text()}}, "readers: Unknown modality 'y'"),
        (labelled(0, 1), {"collate": {"y": pad}}, "collate: Unknown modality 'y'"),
        (
            [{"x": 1, "label": 0}, {"vidoe": 1, "x": 2, "label": 1}],
            {},
            r"sample 1 has 'vidoe', which the first sample has not.*modalities=\['x', 'vidoe'\]",
        ),
        ([{"x": 1, "label": 0}, {"x": None, "label": 1}], {}, r"sample 1 lacks every modality \(1 do\)"),
        ([{"x": 1, "y": None, "label": i} for i in (0, 1)], {}, "Every sample lacks 'y'; leave it out"),
    ],
)
def test_bad_data_sets_are_named(dataset: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        from_dataset(dataset, **options)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("some words", r"sample 1, 'x': is a str; say how it is read: readers=\{'x'"),
        ([[1.0], [1.0, 2.0]], "sample 1, 'x': the value must be an array"),
        ({"array": 1}, "sample 1, 'x': is a dict; say how it is read"),
        (torch.tensor([1.0, torch.nan]), "sample 1, 'x': holds NaN or infinity; a sample without this modality"),
        (torch.tensor([1, 2]), "sample 1, 'x': holds torch.int64, and sample 0 torch.float32"),
        (np.ma.masked_equal([1.0, 2.0], 1), "sample 1, 'x': has masked values"),
    ],
)
def test_bad_values_are_named(value: Any, message: str):
    with pytest.raises(ReadError, match=message):
        from_dataset([*labelled(0), {"x": value, "label": 1}])


def test_an_error_of_the_data_set_says_where():
    class Broken(Dicts):
        def __getitem__(self, index: int):
            if index == 7:
                raise KeyError("lost.wav")
            return super().__getitem__(index)

    with pytest.raises(KeyError, match=r"lost\.wav") as caught:
        from_dataset(Broken())
    assert caught.value.__notes__ == ["while reading sample 7 of Broken"]


def test_what_was_said_to_be_there_must_be_there():
    data = from_dataset(Dicts(absent=True), present={})
    missing = list(data.train.ids).index("1")
    with pytest.raises(ReadError, match=r"sample 1, 'second': is absent, and was not .*present="):
        data.train.batch([missing], "second", None)


def test_fingerprint_is_of_labels_masks_and_division():
    plain = from_dataset(Dicts()).train.fingerprint()
    assert from_dataset(Dicts()).train.fingerprint() == plain
    others = [
        from_dataset(Dicts(absent=True)),
        from_dataset(Dicts(), labels=2 - Y),
        from_dataset(Dicts(), seed=1),
        from_dataset(Dicts(), sample_weight=np.arange(1, N + 1)),
        from_dataset(Dicts(), modalities=("first",)),
        from_dataset([Dicts()[i] for i in range(N)]),
    ]
    assert len({plain, *(data.train.fingerprint() for data in others)}) == 1 + len(others)


def test_numbers_that_are_not_finite_are_named_in_batches_too():
    samples = [*labelled(0, 1, 0), {"x": torch.tensor([0.0, torch.inf]), "label": 1}]
    data = from_dataset(samples, labels=[0, 1, 0, 1], present={}, split=["train", "val", "val", "train"])
    with pytest.raises(ReadError, match="sample 3, 'x': holds NaN or infinity"):
        data.train.batch([0, 1], "x", None)
