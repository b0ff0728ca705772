"""Files of every encoder, what they say of themselves, and what is refused."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import counterpoise as cp
from counterpoise import encoders
from counterpoise.data import Audio, Image
from counterpoise.data.arrays import ArraySplit
from counterpoise.exporting import Exported, export
from counterpoise.exporting.writing import samples
from counterpoise.fusions import Concat
from counterpoise.method import Method

pytest.importorskip("onnxruntime")

TEXT, SERIES = (6,), (7, 5)
ENCODERS: dict[str, tuple[Any, tuple[int, ...]]] = {
    "CNN": (lambda: encoders.CNN(1, 8), (8, 8)),
    "CNN-frames": (lambda: encoders.CNN(3, 8), (3, 2, 9, 8)),
    "MLP": (lambda: encoders.MLP(6, dim=8), (2, 3)),
    "TextBag": (lambda: encoders.TextBag(20, 8), TEXT),
    "TextGRU": (lambda: encoders.TextGRU(20, 8), TEXT),
    "SequenceGRU": (lambda: encoders.SequenceGRU(5, 8), SERIES),
    "SequenceTransformer": (lambda: encoders.SequenceTransformer(5, 8), SERIES),
    "ResNet18": (lambda: encoders.ResNet18(3), (3, 32, 32)),
    "I3D": (lambda: encoders.I3D(), (3, 16, 32, 32)),
    "Checkpointed": (lambda: encoders.Checkpointed(encoders.MLP(6, dim=8)), (6,)),
    "Frozen-Projected": (lambda: encoders.Projected(encoders.Frozen(encoders.MLP(6)), dim=8), (6,)),
}
QUICK = ("CNN", "TextGRU")


def sampled(shape: tuple[int, ...], size: int) -> Tensor:
    if shape == TEXT:
        return torch.randint(0, 20, (size, *shape))
    x = torch.randn(size, *shape)
    if shape == SERIES:
        x[:, 5:] = 0  # padding
    return x


def model_of(**modules: nn.Module) -> cp.MultimodalModel:
    model = cp.build_model(modules, num_classes=3)
    for module in model.modules():  # statistics that a mistake would show in
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(std=0.1)
    return model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[cp.MultimodalModel, Path]:
    model = model_of(a=encoders.MLP(5, dim=4), t=encoders.TextBag(20, 4))
    example = {"a": np.zeros((1, 5)), "t": sampled(TEXT, 1)}
    return model, export(model, cp.methods.Joint(), tmp_path_factory.mktemp("small") / "small.onnx", example)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ENCODERS]
)
def test_every_encoder(name: str, tmp_path: Path):
    torch.manual_seed(0)
    make, shape = ENCODERS[name]
    model = model_of(x=make(), b=encoders.MLP(4, dim=8))
    exported = Exported(
        export(model, cp.methods.Joint(), tmp_path / "m.onnx", {"x": sampled(shape, 1), "b": torch.ones(1, 4)})
    )
    for size in (1, 3, 17):
        inputs = {"x": sampled(shape, size), "b": torch.randn(size, 4)}
        present = {"x": torch.arange(size) % 3 != 1, "b": torch.arange(size) % 4 != 2}
        with torch.no_grad():
            want = model.eval()(inputs, present=present)
        got = exported(inputs, present)
        for part, logits in {"fused": want.logits, **want.unimodal}.items():
            torch.testing.assert_close(torch.from_numpy(got[f"{part}.logits"]), logits, rtol=1e-5, atol=1e-5)


def test_modes_and_weights_stay(tmp_path: Path):
    model = model_of(a=encoders.MLP(5, dim=4), b=encoders.MLP(5, dim=4)).train()
    model.encoders["b"].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, cp.methods.Joint(), tmp_path / "m.pt2", {m: torch.randn(4, 5) for m in "ab"})
    assert model.training
    assert model.encoders["a"].training
    assert not model.encoders["b"].training
    assert all(p.requires_grad for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pt2_and_what_it_says(tmp_path: Path):
    model = model_of(a=encoders.MLP(5, dim=4), b=encoders.CNN(1, 4))
    readers = {"b": Image(size=8, channels=1)}
    path = export(
        model,
        cp.methods.MLA(),
        tmp_path / "m.pt2",
        {"a": torch.ones(1, 5), "b": torch.ones(1, 1, 8, 8)},
        readers=readers,
    )
    extra = {"counterpoise.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    for size in (1, 3, 17):
        inputs = {"a": torch.randn(size, 5), "b": torch.randn(size, 1, 8, 8)}
        present = {"a": torch.arange(size) % 3 != 1, "b": torch.ones(size, dtype=torch.bool)}
        with torch.no_grad():
            output = model.eval()(inputs, present=present)
            want = cp.methods.MLA().predict(output, model)
        torch.testing.assert_close(program(inputs, present)["fused.logits"], want, rtol=1e-5, atol=1e-5)
    facts = json.loads(extra["counterpoise.json"])
    assert facts["task"] == {"kind": "single-label", "names": ["0", "1", "2"]}
    assert facts["modalities"]["a"] == {
        "input": "a",
        "mask": "a.present",
        "shape": [5],
        "dtype": "float32",
        "reader": None,
        "outputs": {"probabilities": "a.probabilities", "logits": "a.logits"},
    }
    assert facts["modalities"]["b"]["reader"]["class_path"] == "counterpoise.data.readers.visual.Image"
    assert facts["modalities"]["b"]["reader"]["init_args"]["size"] == 8


@pytest.mark.slow
def test_the_readers_of_a_table(tmp_path: Path):
    data = cp.Table(cp.data.write_digits(tmp_path / "digits"), {"audio": Audio(), "image": Image(size=8)}).splits()
    made = {"audio": encoders.CNN(1, 4), "image": encoders.CNN(3, 4)}
    model = cp.build_model(made, task=data.task)
    file = io.BytesIO(export(model, cp.methods.Joint(), tmp_path / "m.onnx", data.val.subset(range(3))).read_bytes())
    facts = Exported(tmp_path / "m.onnx").facts
    for m, reader in data.train.table.readers.items():
        assert facts["modalities"][m]["reader"]["init_args"] == json.loads(json.dumps(cp._checks.settings(reader)))
    assert facts["task"]["names"] == list(data.classes)
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_batch_is_the_one_free_size(small):
    graph = onnx.load(small[1]).graph
    sizes = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*graph.input, *graph.output]
    }
    assert list(sizes) == [
        "a", "t", "a.present", "t.present",
        "fused.probabilities", "fused.logits", "a.probabilities", "a.logits", "t.probabilities", "t.logits",
    ]  # fmt: skip
    assert sizes["a"] == ["batch", 5]
    assert sizes["t"] == ["batch", 6]
    assert sizes["a.present"] == ["batch"]
    assert sizes["fused.logits"] == ["batch", 3]


def test_a_modality_that_is_left_out_is_absent(small):
    model, path = small
    a = torch.randn(4, 5)
    with torch.no_grad():
        want = model.eval()({"a": a}, only=("a",))
    got = Exported(path)({"a": a.numpy()})
    torch.testing.assert_close(torch.from_numpy(got["fused.logits"]), want.logits)


@pytest.mark.parametrize(
    ("inputs", "present", "message"),
    [
        ({"a": np.zeros((2, 3, 5), "float32")}, None, r"inputs\['a'\] must be \(n, 5\) of float32; got .*\(2, 3, 5\)"),
        ({"a": np.zeros((2, 5))}, None, r"of float32; got float64 .* Pass x.astype\('float32'\)"),
        ({"t": np.zeros((2, 6), "int32")}, None, r"\(n, 6\) of int64; got int32"),
        ({"a": np.zeros(5, "float32")}, None, r"got float32 of shape \(5,\)"),
        ({"audio": np.zeros((2, 5))}, None, "Unknown modality 'audio'"),
        ({}, None, "at least of one modality"),
        ({"a": np.zeros((2, 5), "float32"), "t": np.zeros((3, 6), int)}, None, "one number of samples"),
        ({"a": np.zeros((2, 5), "float32")}, {"a": np.ones(2)}, r"present\['a'\] must be \(2,\) bool; got float64"),
        ({"a": np.zeros((2, 5), "float32")}, {"t": np.ones(2, bool)}, r"inputs has no 't'"),
    ],
)
def test_inputs_that_do_not_fit(small, inputs, present, message):
    with pytest.raises(ValueError, match=message):
        Exported(small[1])(inputs, present)


class ByValue(nn.Module):
    dim = 4

    def forward(self, x):
        return x[:, :4] if x.sum() > 0 else x[:, 1:5]


class BySize(nn.Module):
    dim = 4

    def forward(self, x):
        return x[:, :4] + torch.zeros(len(x), 1)


class LikeTheExample(nn.Module):
    """Recorded as it went for two samples, without anything that PyTorch would notice."""

    dim = 4

    def forward(self, x):
        return x[:, :4] * np.asarray(x.detach().cpu().mean()).item() if not torch.compiler.is_compiling() else x[:, :4]


class ValueFusion(Concat):
    def fuse(self, features, present):
        logits = super().fuse(features, present)
        return logits if logits.sum() > 0 else -logits


class ValueRule(Method):
    def predict(self, output, model):
        return output.logits if output.logits.sum() > 0 else -output.logits


@pytest.mark.parametrize(
    ("encoder", "fusion", "method", "message"),
    [
        (
            ByValue,
            "Concat",
            cp.methods.Joint,
            r"^encoders\['b'\] \(ByValue\) cannot be exported: .* must not hang on a",
        ),
        (BySize, "Concat", cp.methods.Joint, r"^encoders\['b'\] \(BySize\) .*x.shape\[0\] or torch.ones_like\(x\)"),
        (LikeTheExample, "Concat", cp.methods.Joint, r"something else than the model: fused.probabilities is off by"),
        (lambda: encoders.MLP(5, dim=4), ValueFusion, cp.methods.Joint, "^fusion ValueFusion cannot be exported"),
        (lambda: encoders.MLP(5, dim=4), "Concat", ValueRule, "^predict of method ValueRule cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_named(encoder, fusion, method, message, tmp_path):
    model = cp.build_model({"a": encoders.MLP(5, dim=4), "b": encoder()}, fusion, num_classes=3)
    with pytest.raises(ValueError, match=message):
        export(model, method(), tmp_path / "m.pt2", {m: torch.randn(2, 5) for m in "ab"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "example", "error", "message"),
    [
        ("m.bin", {}, ValueError, "path must end in .onnx or .pt2; got 'm.bin'"),
        ("no/m.onnx", {}, FileNotFoundError, "There is no folder"),
        ("m.onnx", {"a": torch.zeros(2, 5)}, ValueError, "reads modality 't', which is not there"),
        (
            "m.onnx",
            {"a": torch.zeros(5), "t": torch.zeros(2, 6).long()},
            ValueError,
            r"example\['a'\] must be \(n, ...\)",
        ),
        (
            "m.onnx",
            {"a": torch.zeros(2, 6), "t": torch.zeros(2, 6).long()},
            ValueError,
            r"encoders\['a'\] \(MLP\) fails",
        ),
        ("m.onnx", {"a": torch.zeros(2, 5), "t": torch.zeros(2, 6)}, ValueError, "token numbers must be whole"),
    ],
)
def test_examples_and_paths_that_do_not_fit(small, name, example, error, message, tmp_path):
    with pytest.raises(error, match=message):
        export(small[0], cp.methods.Joint(), tmp_path / name, example)


def test_the_example_of_a_split_is_a_sample_that_has_the_modality(small, tmp_path):
    inputs, target = {"a": torch.rand(4, 5), "t": torch.arange(24).reshape(4, *TEXT) % 20}, torch.arange(4) % 3
    some = ArraySplit(inputs, target, small[0].task, present={"t": torch.tensor([False, False, True, True])})
    assert torch.equal(samples(some, ("a", "t"))["t"], inputs["t"][[2, 2]])
    none = ArraySplit(inputs, target, small[0].task, present={"t": torch.zeros(4, dtype=torch.bool)})
    with pytest.raises(ValueError, match="example: no sample has the modality 't'"):
        export(small[0], cp.methods.Joint(), tmp_path / "m.onnx", none)


def test_nothing_is_overwritten_unasked(small, tmp_path):
    path = tmp_path / "m.pt2"
    path.write_text("mine")
    example = {"a": np.zeros((1, 5)), "t": sampled(TEXT, 1)}
    with pytest.raises(FileExistsError, match="overwrite=True"):
        export(small[0], cp.methods.Joint(), path, example)
    assert path.read_text() == "mine"
    export(small[0], cp.methods.Joint(), path, example, overwrite=True)
    assert path.stat().st_size > 1000


def test_a_trainer_exports_what_it_read(tmp_path):
    """Also where training read features in the place of inputs."""
    data = cp.from_arrays({"a": np.random.rand(40, 5), "b": np.random.rand(40, 4)}, np.arange(40) % 2)
    made = {"a": encoders.Frozen(encoders.MLP(5, dim=3), reuse=True), "b": encoders.MLP(4, dim=3)}
    trainer = cp.Trainer(
        cp.build_model(made, task=data.task), cp.methods.Joint(), epochs=1, batch_size=8, progress=False
    )
    with pytest.raises(ValueError, match=r"before fit\(train, val\)"):
        trainer.export(tmp_path / "m.onnx")
    trainer.fit(data.train, data.val)
    exported = Exported(trainer.export(tmp_path / "m.onnx"))
    assert exported.facts["modalities"]["a"]["shape"] == [5]
    inputs = {m: data.val.batch(range(len(data.val)), m, None).numpy() for m in "ab"}
    want = trainer.predict(data.val).fused
    torch.testing.assert_close(torch.from_numpy(exported(inputs)["fused.logits"]), want, rtol=1e-5, atol=1e-5)


def test_readers_of_no_modality(small, tmp_path):
    example = {"a": np.zeros((1, 5)), "t": sampled(TEXT, 1)}
    with pytest.raises(ValueError, match="readers: Unknown modality 'image'"):
        export(small[0], cp.methods.Joint(), tmp_path / "m.onnx", example, readers={"image": Image(size=8)})


def test_files_that_are_no_export(small, tmp_path):
    with pytest.raises(FileNotFoundError):
        Exported(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ValueError, match="is no file of ONNX, or a damaged one"):
        Exported(tmp_path / "text.onnx")
    with pytest.raises(ValueError, match=r"opened by torch\.export\.load"):
        Exported(tmp_path / "m.pt2")
    other = onnx.load(small[1])
    (facts,) = other.metadata_props
    later = json.loads(facts.value) | {"format": 2}
    facts.value = json.dumps(later)
    onnx.save(other, tmp_path / "later.onnx")
    with pytest.raises(ValueError, match="written by a later version of counterpoise"):
        Exported(tmp_path / "later.onnx")
    del other.metadata_props[:]
    onnx.save(other, tmp_path / "foreign.onnx")
    with pytest.raises(ValueError, match="was not written by counterpoise"):
        Exported(tmp_path / "foreign.onnx")


def test_a_compiled_encoder(tmp_path):
    model = model_of(a=encoders.MLP(5, dim=4), b=encoders.MLP(5, dim=4))
    model.encoders["a"].compile(backend="eager")
    path = export(model, cp.methods.Joint(), tmp_path / "m.pt2", {m: torch.randn(4, 5) for m in "ab"})
    x = {m: torch.randn(3, 5) for m in "ab"}
    with torch.no_grad():
        want = model.eval()(x).logits
    everyone = {m: torch.ones(3, dtype=torch.bool) for m in "ab"}
    torch.testing.assert_close(torch.export.load(path).module()(x, everyone)["fused.logits"], want)


def test_a_missing_extra_names_itself(small, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    example = {"a": np.zeros((1, 5)), "t": sampled(TEXT, 1)}
    for call in (
        lambda: Exported(small[1]),
        lambda: export(small[0], cp.methods.Joint(), tmp_path / "m.onnx", example),
    ):
        with pytest.raises(ImportError, match=r"pip install 'counterpoise\[export\]'"):
            call()
