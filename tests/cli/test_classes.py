"""A configuration names classes of the kind that an option takes; nothing else of it is ever called."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from conftest import Run
from counterpoise._yaml import LIMIT, read_yaml
from counterpoise.data.readers import Array
from counterpoise.fusions import Fusion, Late
from counterpoise.methods import Joint
from counterpoise.recipe.classes import foreign
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.spelling import parse

QUICK = {"epochs": 1, "batch_size": 16, "progress": False}
DIGITS = {"data": {"class_path": "digits", "init_args": {"size": 120}}, "method": "Joint", **QUICK}
HERE = __name__
TRANSFORMER = "torch.nn.TransformerEncoderLayer"
called: list[str] = []
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the parser warns of os.system too


def function(*_: Any, **__: Any) -> Fusion:
    called.append("function")
    return Late({"audio": 3, "image": 3}, 10)


class Stranger:
    """Of no kind that an option takes."""

    def __init__(self, *_: Any, **__: Any):
        called.append("Stranger")

    def __call__(self, *_: Any) -> None: ...


class Own(Joint):
    """A method of the user's."""


class OwnReader(Array):
    """A reader of the user's."""


class Anything(nn.Module):
    """A module that takes arguments of every type."""

    def __init__(self, plain=None, inner: nn.Module | None = None, kind: type = int, call: Any = None):
        super().__init__()
        called.append("Anything")


def spec(name: str, **arguments: Any) -> dict[str, Any]:
    return {"class_path": name if "." in name else f"{HERE}.{name}", "init_args": arguments}


@pytest.fixture(autouse=True)
def nothing_called() -> None:
    called.clear()


def read(tmp_path: Path, options: dict[str, Any]) -> Any:
    file = tmp_path / "c.yaml"
    file.write_text(json.dumps({**DIGITS, **options}))
    return parse(fit_parser(), ["--config", str(file)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": spec("function")}, "--fusion takes a subclass of Fusion; .*function is none"),
        ({"fusion": spec("os.system", command="echo x")}, "--fusion takes a subclass of Fusion; posix.system is none"),
        ({"fusion": spec("subprocess.Popen", args="echo x")}, "fusion"),
        ({"fusion": f"{HERE}.function"}, "--fusion takes a subclass of Fusion"),
        ({"fusion": spec("Stranger")}, "fusion"),
        ({"method": spec("Stranger")}, "--method: Import path .*Stranger does not correspond to a subclass of Method"),
        ({"method": spec("function")}, "--method: .*does not correspond to a subclass of Method"),
        ({"optimizer": spec("torch.optim.SGD")}, "--optimizer: .*does not correspond to a subclass of Optimizer"),
        ({"schedule": spec("counterpoise.methods.Joint")}, "--schedule: .*does not correspond to a subclass"),
        ({"data": spec("function")}, "--data: .*does not correspond to a subclass of Source"),
        ({"encoders": {"audio": spec("Stranger")}}, "encoders"),
        ({"encoders": {"audio": spec("Anything", plain=spec("Stranger"))}}, r"--encoders.audio.plain takes no class; "),
        ({"encoders": {"audio": spec("Anything", plain=[spec("Stranger")])}}, "--encoders.audio.plain takes no class"),
        ({"encoders": {"audio": spec("Anything", plain={"a": spec("function")})}}, "--encoders.audio.plain.a takes no"),
        ({"encoders": {"audio": spec("Anything", kind="subprocess.Popen")}}, "--encoders.audio.kind takes no class"),
        ({"encoders": {"audio": spec("Anything", inner=spec("Stranger"))}}, "encoders.inner: .*Stranger does not"),
        (
            {"encoders": {"audio": spec("torch.nn.Linear", in_features=3, out_features=3, device=spec("Stranger"))}},
            "--encoders.audio.device takes no class",
        ),
        (
            {"encoders": {"image": spec("Anything", inner=spec("Anything", plain=spec("os.system", command="ls")))}},
            "--encoders.image.inner.plain takes no class; posix.system is none",
        ),
        (
            {"encoders": {"image": spec(TRANSFORMER, d_model=2, nhead=1, activation="os.system")}},
            "--encoders.image.activation takes a subclass of Tensor; posix.system is none",
        ),
        ({"encoders": {"image": spec("counterpoise.encoders.Frozen", encoder=spec("function"))}}, "encoders.image"),
        (
            {"data": {"class_path": "Table", "init_args": {"path": "x.csv", "modalities": {"a": spec("function")}}}},
            "data.modalities",
        ),
    ],
)  # fmt: skip
def test_what_no_option_takes_is_refused_and_not_called(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, options)
    assert not called


def test_classes_of_the_users_own_stay_possible(tmp_path: Path) -> None:
    inner = spec("Anything", plain=[1, "torch.relu"], inner=spec("torch.nn.Flatten"))
    readers = {"a": spec("OwnReader"), "b": "array"}
    options = read(
        tmp_path,
        {
            "data": {"class_path": "Table", "init_args": {"path": "x.csv", "modalities": readers}},
            "method": f"{HERE}.Own",
            "encoders": {"a": inner},
        },
    )
    made = fit_parser().instantiate(type(options)(method=options.method, encoders=options.encoders))
    assert type(made.method).__name__ == "Own"
    assert isinstance(made.encoders["a"], nn.Module)


@pytest.mark.parametrize("name", ["config", "encoders.audio", "data.init_args.size", "method.class_path", 3])
def test_names_that_would_go_around_the_rule(name: object, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(f"{name}: x\n")
    with pytest.raises(UsageError, match=f"{name!r} is no option of a file"):
        parse(fit_parser(), ["--config", str(file)])


def test_a_run_that_names_classes_elsewhere_is_opened_with_trust_only(run: Run, tmp_path: Path) -> None:
    Path("elsewhere.py").write_text(
        "from pathlib import Path\nfrom counterpoise.methods import Joint\nPath('imported').touch()\n"
        "class Mine(Joint):\n    pass\n"
    )
    own = ["--data", "digits", "--data.size", 120, "--epochs", 1, "--batch_size", 16, "--progress", "false"]
    done = run("fit", *own, "--method", "elsewhere.Mine", "--run_dir", "r")
    assert done.code == 0, done.err
    Path("imported").unlink()
    for command in (["evaluate", "r"], ["predict", "r", "x.csv", "--out", "p.csv"]):
        done = run(*command)
        assert done.code == 2
        assert "names what is not of this package: elsewhere.Mine. " in done.err
        assert "Pass --trust" in done.err
    assert run("evaluate", "r", "--trust").code == 0
    # another function is refused, trusted or not
    config = Path("r/config.yaml")
    text = config.read_text()
    assert "\nfusion: null\n" in text
    config.write_text(text.replace("\nfusion: null\n", f"\nfusion: {{class_path: {HERE}.function}}\n"))
    done = run("evaluate", "r", "--trust")
    assert (done.code, called) == (2, [])
    assert "--fusion takes a subclass of Fusion" in done.err


def test_what_a_configuration_imports() -> None:
    assert foreign({**DIGITS, "run_dir": "a/b.c", "label": "no.such", "x": ["resnet18.pth", "layer4.1.conv"]}) == []
    assert foreign({"method": "counterpoise.methods.IGM"}) == []
    assert foreign({"a": [{"no_such_module.c": "os.system"}], "torch.nn.Flatten": 1, "activation": "os.system"}) == [
        "os.system",
        "torch.nn.Flatten",
    ]


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(12, 9), "repeat so much"),
        (f"a: &a {'x' * 1000}\nb: [{', '.join(['*a'] * 20000)}]", "repeat so much"),
        ("a0: &a0 {b: 1}\n" + "\n".join(f"a{i}: &a{i} {{c: *a{i - 1}, d: *a{i - 1}}}" for i in range(1, 40)), "repeat"),
        ("a: &a [*a]", "contains itself"),
        ("a: &a {b: [1, *a]}", "contains itself"),
        ("[" * 1500, "nested too deeply|no YAML"),
        ("epochs: 1\nseed: 2\nepochs: 3", "'epochs' stands twice in one mapping, again in line 3"),
        ("a: {b: 1, b: 2}", "'b' stands twice"),
        ("a: !!python/object/apply:os.system [true]", "no YAML"),
        ("a: [", "no YAML"),
        ("a: \x00", "no YAML"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_yaml(text)
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(UsageError, match="is no YAML of plain values"):
        parse(fit_parser(), ["--config", str(tmp_path / "c.yaml")])


def test_aliases_of_a_usual_size() -> None:
    assert LIMIT > 10**6
    assert read_yaml("a: &a {b: [1, 2]}\nc: *a\nd: {<<: *a, e: 3}") == {
        "a": {"b": [1, 2]},
        "c": {"b": [1, 2]},
        "d": {"b": [1, 2], "e": 3},
    }
    assert read_yaml("") is None
