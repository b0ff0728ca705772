"""``compile=True``: the same training, and hooks that come later still see what enters a layer."""

import pytest
import torch

from counterpoise.engine import Trainer
from counterpoise.functional import collect_inputs
from counterpoise.methods import IGM, Joint
from counterpoise.testing import NAMES, task, tiny_model

TWO = NAMES[:2]


@pytest.fixture
def eager_backend(monkeypatch):
    """Dynamo's capture without the C++ compiler, which takes minutes."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **options: real(f, backend="eager"))
    yield
    torch._dynamo.reset()


def fitted(method, **options):
    data = task(TWO)
    model = tiny_model(method, TWO)
    trainer = Trainer(model, method, accelerator="cpu", batch_size=16, epochs=2, progress=False, **options)
    trainer.fit(data.train, data.val)
    return trainer


@pytest.mark.parametrize("method", [Joint, lambda: IGM(stages=[1, 1], scope=["head.0", "encoder.0"])])
def test_compiled_encoders_train_as_they_are_written(eager_backend, method):
    plain, compiled = fitted(method()), fitted(method(), compile=True)
    assert all(e._compiled_call_impl is not None for e in compiled.model.encoders.values())
    assert compiled.model.state_dict().keys() == plain.model.state_dict().keys()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, msg=name)
    assert compiled.current.fork(Joint(), 1).model.encoders[TWO[0]]._compiled_call_impl is not None


def test_inputs_of_layers_inside_a_compiled_module_are_collected(eager_backend):
    net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
    x = torch.randn(5, 4)
    net.compile()
    with torch.no_grad():
        net(x)
        with collect_inputs({"second": net[1]}) as moments:
            net(x)
    mean = net[0](x).mean(0).double()
    torch.testing.assert_close(moments["second"], torch.outer(mean, mean).detach())


def test_no_compiler_is_said_at_once(monkeypatch):
    def broken(f, **options):
        def fail(*args):
            raise RuntimeError("InvalidCxxCompiler: no working C++ compiler\nand a long explanation")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(ValueError, match=r"compile=True.*no working C\+\+ compiler\).*leave compile out"):
        Trainer(tiny_model(Joint(), TWO), Joint(), accelerator="cpu", compile=True)


@pytest.mark.slow
def test_the_real_compiler_gives_the_same_step():
    plain, compiled = fitted(Joint()), fitted(Joint(), compile=True)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, msg=name, rtol=1e-4, atol=1e-5)
