"""Frozen encoders in bfloat16: trained beside, written down, loaded, exported."""

import pytest
import torch
from test_replicas import on_two

import counterpoise as cp
from counterpoise.encoders import MLP, Frozen
from counterpoise.engine import SGD, Trainer, make_fabric
from counterpoise.exporting.graph import Graph
from counterpoise.testing import DIM, assert_same, everything, task

TWO = ("first", "second")


def tower():
    torch.manual_seed(0)
    return MLP(DIM, dim=8)


def fitted(fabric=None, method="OGM", *, reuse=False, **options):
    encoders = {"first": Frozen(tower(), dtype="bfloat16", reuse=reuse), "second": MLP(DIM, dim=8)}
    data = task(TWO, absent=0.0 if reuse else 0.5)
    options = {"epochs": 2, "batch_size": 6, "optimizer": SGD(lr=0.05), "progress": False, **options}
    fabric = fabric or make_fabric(accelerator="cpu")
    trainer = Trainer(cp.build_model(encoders, task=data.task), method, fabric=fabric, **options)
    trainer.fit(data.train, data.val)
    return trainer, data


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "bf16"
    return folder, *fitted(run_dir=folder)


def test_a_checkpoint_holds_what_it_was_rounded_to(run):
    folder, _, _ = run
    saved = torch.load(folder / "best.ckpt", weights_only=True)["model"]
    for name, p in tower().named_parameters():
        kept = saved[f"encoders.first.encoder.{name}"]
        assert kept.dtype == (torch.bfloat16 if p.ndim > 1 else torch.float32)
        assert torch.equal(kept, p.to(kept.dtype))


def test_a_loaded_model_predicts_the_same(run, tmp_path):
    folder, trainer, data = run
    want = trainer.predict(data.val).fused.softmax(1).numpy()
    loaded = cp.load(folder)
    assert loaded.predict_proba(data.val) == pytest.approx(want, abs=1e-7)
    assert cp.load(loaded.save_pretrained(tmp_path / "out")).predict_proba(data.val) == pytest.approx(want, abs=1e-7)


def test_what_is_exported_computes_in_float32(run):
    _, trainer, data = run
    graph = Graph(trainer.model, trainer.method)
    assert all(p.dtype == torch.float32 for p in graph.parameters())
    assert trainer.model.encoders["first"].dtype == "bfloat16"  # the copy is another one
    x = data.val.batch(range(4), "first", None)
    wanted = trainer.model.encoders["first"](x)
    torch.testing.assert_close(graph.model.encoders["first"](x), wanted, rtol=0.02, atol=0.02)


@pytest.mark.slow
def test_a_file_of_onnx(run, tmp_path):
    pytest.importorskip("onnxscript")
    _, trainer, data = run
    exported = cp.Exported(trainer.export(tmp_path / "model.onnx"))
    inputs = {m: data.val.batch(range(len(data.val)), m, None).numpy() for m in TWO}
    present = {m: data.val.present[m].numpy() for m in TWO}
    found = torch.from_numpy(exported(inputs, present)["fused.logits"])
    torch.testing.assert_close(found, trainer.predict(data.val).fused, rtol=0.05, atol=0.05)


def test_features_that_are_reused_are_float32():
    trainer, data = fitted(reuse=True)
    features = trainer.current.train_split.features["first"]
    assert features.dtype == torch.float32
    assert torch.equal(
        features, Frozen(tower(), dtype="bfloat16")(data.train.batch(range(len(data.train)), "first", None))
    )


def tensors(fabric):
    return everything(fitted(fabric)[0])


@pytest.mark.slow
def test_two_processes():
    assert_same(*on_two(tensors))


def test_in_mixed_precision():
    trainer, _ = fitted(make_fabric(accelerator="cpu", precision="bf16-mixed"))
    assert all(value.isfinite().all() for value in everything(trainer).values())
