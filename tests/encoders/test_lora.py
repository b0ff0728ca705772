"""``LoRA``: what trains, what a checkpoint holds, and what it is refused for."""

import copy
import importlib.util

import pytest
import torch
from torch import nn

import counterpoise as cp
from counterpoise._checks import settings
from counterpoise.cli import main
from counterpoise.encoders import MLP, Checkpointed, LoRA, ResNet18, SequenceTransformer, Transformers
from counterpoise.engine import SGD, CheckpointError, Trainer
from counterpoise.exporting.graph import Graph
from counterpoise.testing import assert_same, everything

pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


class Pretrained(nn.Sequential):
    """Some layers that claim to come from somewhere."""

    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3))


def test_two_matrices_beside_each_layer():
    torch.manual_seed(0)
    plain, x = Pretrained(), torch.randn(8, 4)
    encoder = LoRA(copy.deepcopy(plain), rank=2, alpha=6.0)
    assert torch.equal(encoder.eval()(x), plain.eval()(x))
    trained = {n: p for n, p in encoder.named_parameters() if p.requires_grad}
    assert [tuple(p.shape) for p in trained.values()] == [(2, 4), (6, 2), (2, 6), (3, 2)]
    assert all(".lora_" in n for n in trained)
    for p in trained.values():
        nn.init.normal_(p)
    A, B, C, D = (p.detach().double() for p in trained.values())
    first, norm, tanh, last = copy.deepcopy(plain).double()
    hidden = tanh(norm(first(x.double()) + 3 * x.double() @ A.T @ B.T))
    wanted = last(hidden) + 3 * hidden @ C.T @ D.T
    torch.testing.assert_close(encoder(x).double(), wanted, rtol=1e-5, atol=1e-5)
    encoder.prepare_export()
    assert [n.removeprefix("encoder.") for n in encoder.state_dict() if n != "base"] == list(plain.state_dict())
    torch.testing.assert_close(encoder(x).double(), wanted, rtol=1e-5, atol=1e-5)


def test_only_adapters_and_a_digest_are_in_a_checkpoint():
    torch.manual_seed(0)
    plain, x = Pretrained(), torch.randn(8, 4)
    one, same = LoRA(copy.deepcopy(plain), rank=2), LoRA(copy.deepcopy(plain), rank=2)
    other = LoRA(Pretrained(), rank=2)
    one.train()(x).sum().backward()
    assert torch.equal(one.encoder[1].running_mean, plain[1].running_mean)  # no statistics that are not saved
    nn.init.normal_(one.encoder[0].lora_B["default"].weight)
    state = nn.ModuleDict({"image": one}).state_dict()
    assert len(state) == 5
    assert all(name == "image.base" or ".lora_" in name for name in state)
    nn.ModuleDict({"image": same}).load_state_dict(state)
    assert torch.equal(same.eval()(x), one.eval()(x))
    with pytest.raises(RuntimeError, match=r"image\.base: the adapters were trained beside other weights"):
        nn.ModuleDict({"image": other}).load_state_dict(state)
    assert_same(copy.deepcopy(one).state_dict(), one.state_dict())


def test_which_layers():
    encoder = LoRA(Pretrained(), targets=["3"])
    assert [n for n, p in encoder.named_parameters() if p.requires_grad and "lora_A" in n] == [
        "encoder.3.lora_A.default.weight"
    ]
    # layers of PyTorch's transformer are not called in evaluation, so an adapter in them would not take part
    encoder = LoRA(nn.Sequential(SequenceTransformer(6, 8), nn.Linear(8, 3)))
    assert {n.split(".lora_")[0] for n, p in encoder.named_parameters() if p.requires_grad} == {
        "encoder.0.project",
        "encoder.1",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoRA(Pretrained(), targets=["2.query"]), "Unknown layer '2.query'"),
        (lambda: LoRA(Pretrained(), targets="3"), r"Pass targets=\['3'\]"),
        (lambda: LoRA(nn.Sequential(nn.Flatten())), "no linear layer"),
        (lambda: LoRA(Pretrained(), rank=0), "rank must be"),
        (lambda: LoRA(Pretrained(), alpha=0), "alpha must be"),
        (lambda: LoRA(ResNet18(), targets=["conv1"]), "this ResNet18 starts at random.*Give it weights="),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_without_the_extra(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr("counterpoise._extras.find_spec", lambda name: None if name == "peft" else real(name))
    with pytest.raises(ImportError, match=r"LoRA needs the package peft: pip install 'counterpoise\[lora\]'"):
        LoRA(Pretrained())


# -- in a run --------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("bert")
    transformers.BertModel(transformers.BertConfig(vocab_size=20, **SMALL)).save_pretrained(folder)
    return folder


def fitted(bert, method="Joint", wrap=lambda e: e, **options):
    torch.manual_seed(1)
    text = wrap(LoRA(Transformers(str(bert), pad=0), rank=2, targets=["query", "value"]))
    rng = torch.Generator().manual_seed(0)
    y = torch.arange(48) % 3
    inputs = {"text": torch.randint(1, 20, (48, 5), generator=rng), "b": torch.randn(48, 4, generator=rng)}
    data = cp.from_arrays(inputs, y, val=0.25)
    heads = method == "MMPareto"
    model = cp.build_model({"text": text, "b": MLP(4, dim=8)}, task=data.task, heads=heads)
    options = {
        "epochs": 2,
        "batch_size": 8,
        "optimizer": SGD(lr=0.1),
        "progress": False,
        "accelerator": "cpu",
        **options,
    }
    trainer = Trainer(model, method, **options)
    trainer.fit(data.train, data.val, resume=bool(options.get("run_dir")))
    return trainer, data


@pytest.fixture(scope="module")
def run(bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lora"
    return folder, *fitted(bert, run_dir=folder)


def test_a_run_holds_adapters_and_heads_and_is_loaded(run, bert, tmp_path):
    folder, trainer, data = run
    assert settings(trainer.model.encoders["text"])["targets"] == ["query", "value"]
    saved = torch.load(folder / "best.ckpt", weights_only=True)["model"]
    of_text = [name for name in saved if name.startswith("encoders.text.")]
    assert len(of_text) == 9  # two layers, two targets, two matrices, and the digest
    assert all("lora_" in name or name.endswith(".base") for name in of_text)
    assert any(saved[name].abs().sum() > 0 for name in of_text if "lora_B" in name)
    want = trainer.predict(data.val).fused.softmax(1).numpy()
    loaded = cp.load(folder)
    assert loaded.predict_proba(data.val) == pytest.approx(want, abs=1e-7)
    assert cp.load(loaded.save_pretrained(tmp_path / "out")).predict_proba(data.val) == pytest.approx(want, abs=1e-7)
    graph = Graph(trainer.model, trainer.method)
    x = data.val.batch(range(4), "text", None)
    torch.testing.assert_close(graph.model.encoders["text"](x), trainer.model.encoders["text"](x), rtol=1e-4, atol=1e-5)


def test_other_weights_are_refused(run, bert, tmp_path):
    folder, _, _ = run
    kept = (bert / "model.safetensors").read_bytes()
    torch.manual_seed(7)
    try:
        transformers.BertModel(transformers.BertConfig(vocab_size=20, **SMALL)).save_pretrained(bert)
        with pytest.raises(CheckpointError, match="trained beside other weights"):
            cp.load(folder)
    finally:
        (bert / "model.safetensors").write_bytes(kept)


def test_stopped_and_resumed(run, bert, tmp_path):
    _, whole, _ = run
    fitted(bert, run_dir=tmp_path / "cut", budget=1e-9)  # one epoch
    again, _ = fitted(bert, run_dir=tmp_path / "cut")
    assert_same(everything(again), everything(whole))


@pytest.mark.parametrize("method", ["MMPareto", pytest.param("UMT", marks=pytest.mark.slow)])
def test_methods_and_checkpointing(bert, method):
    plain, _ = fitted(bert, method)
    checkpointed, _ = fitted(bert, method, wrap=Checkpointed)
    a, b = (list(everything(t).values()) for t in (plain, checkpointed))
    assert len(a) == len(b)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.slow
def test_on_the_command_line(tmp_path, monkeypatch, capsys):
    """A convolution adapted beside weights from a file; then the file is another one."""
    resnet18 = pytest.importorskip("torchvision").models.resnet18
    monkeypatch.chdir(tmp_path)

    def ended(*words):
        with pytest.raises(SystemExit) as end:
            main([*words])
        return end.value.code, capsys.readouterr().err

    torch.save(resnet18().state_dict(), "r18.pth")
    image = ["--encoders.image", "LoRA", "--encoders.image.targets", '["layer4.1.conv2"]', "--encoders.image.rank", "2"]
    image += ["--encoders.image.encoder", "ResNet18", "--encoders.image.encoder.weights", "r18.pth"]
    size = ["--data", "digits", "--data.size", "120", "--epochs", "1", "--batch_size", "16", "--accelerator", "cpu"]
    assert ended("fit", *size, "--method", "Joint", *image, "--run_dir", "run")[0] == 0
    saved = torch.load("run/best.ckpt", weights_only=True)["model"]
    of_image = [n for n in saved if n.startswith("encoders.image") and not n.endswith(".base")]
    assert [n.split(".")[-3] for n in of_image] == ["lora_A", "lora_B"]
    assert ended("evaluate", "run", "--split", "test")[0] == 0
    assert ended("export", "run", "model.pt2") == (0, "")
    torch.save(resnet18().state_dict(), "r18.pth")
    code, err = ended("evaluate", "run", "--split", "test")
    assert code == 1
    assert "trained beside other weights" in err
