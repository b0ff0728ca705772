from __future__ import annotations

import pytest

from counterpoise.recipe.messages import UsageError
from counterpoise.tuning.space import Parameter, parameter


@pytest.mark.parametrize(
    ("text", "expected", "ends"),
    [
        ("optimizer.lr=float:1e-3:0.1:log", Parameter("optimizer.lr", "float", 0.001, 0.1, log=True), ["0.001", "0.1"]),
        ("--epochs=int:2:20", Parameter("epochs", "int", 2, 20), ["2", "20"]),
        ("fusion=choice:Concat, Sum", Parameter("fusion", "choice", choices=("Concat", "Sum")), ["Concat", "Sum"]),
        (
            "method.order=choice:[a,b],[b,a]",
            Parameter("method.order", "choice", choices=("[a,b]", "[b,a]")),
            ["[a,b]", "[b,a]"],
        ),
    ],
)
def test_parameter(text: str, expected: Parameter, ends: list[str]) -> None:
    assert parameter(text) == expected
    assert parameter(text).ends() == ends


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("method.tau", ""),
        ("method.tau=", ""),
        ("method.tau=0.1:1", ""),
        ("method.tau=float:0.1", ""),
        ("method.tau=float:a:1", ""),
        ("epochs=int:1.5:3", ""),
        ("method.tau=float:1:0.1", "; LOW must be less than HIGH"),
        ("method.tau=float:1:inf", "; LOW must be less than HIGH"),
        ("method.tau=float:0:1:log", "; a logarithmic range must be above 0"),
        ("method.tau=float:1:2:lin", "; 'lin' is not log"),
        ("fusion=choice:Sum", "; a choice needs at least two different values"),
        ("fusion=choice:Sum,Sum", "; a choice needs at least two different values"),
    ],
)
def test_what_is_malformed_is_answered_with_the_syntax(text: str, why: str) -> None:
    with pytest.raises(UsageError) as error:
        parameter(text)
    assert str(error.value).startswith("--param must be NAME=float:LOW:HIGH, NAME=int:LOW:HIGH (either with :log")
    assert f"got {text!r}{why}. Example: --param optimizer.lr=float:1e-3:0.1:log" in str(error.value)
