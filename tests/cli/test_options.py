from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from counterpoise.methods import Joint
from counterpoise.recipe.messages import UsageError
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.spelling import parse

DIGITS = ["--data", "digits", "--method", "Joint"]


class Mine(Joint):
    """A method that is not ours."""

    def __init__(self, strength: float = 0.5):
        super().__init__()
        self.strength = strength


def parsed(*arguments: object) -> Any:
    return parse(fit_parser(), [str(argument) for argument in arguments])


def refused(*arguments: object) -> str:
    with pytest.raises(UsageError) as error:
        parsed(*arguments)
    message, _, advice = str(error.value).partition("\nSee: ")
    assert advice in ("", "counterpoise fit --help")
    return message


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ("x.csv", "Table"),
        ("x.TSV", "Table"),
        ("x.parquet", "Table"),
        ("x.npz", "Arrays"),
        ("digits", "Digits"),
        ("Digits", "Digits"),
    ],
)
def test_data_by_file_or_name(given: str, kind: str) -> None:
    for arguments in (["--data", given], [f"--data={given}"]):
        data = parsed(*arguments, "--method", "joint").data
        assert data.class_path.endswith(f".{kind}")
        assert kind == "Digits" or data.init_args.path == given


def test_short_names_in_any_case() -> None:
    options = parsed(
        "--data", "digits", "--method", "igm", "--fusion", "gated", "--optimizer", "adamw", "--schedule", "cosine"
    )
    assert options.method.class_path == "counterpoise.methods.IGM"
    assert options.fusion.class_path == "counterpoise.fusions.Gated"
    assert options.optimizer.class_path.endswith(".AdamW")
    assert options.schedule.class_path.endswith(".Cosine")


def test_any_optimizer_of_pytorch(tmp_path) -> None:
    typed = parsed(*DIGITS, "--optimizer.lr", "0.2", "--optimizer", "rmsprop", "--optimizer.options", '{"alpha": 0.9}')
    (tmp_path / "a.yaml").write_text("optimizer: {class_path: RMSprop, init_args: {lr: 0.2, alpha: 0.9}}")
    for options in (typed, parsed(*DIGITS, "--config", tmp_path / "a.yaml")):
        assert options.optimizer.class_path.endswith(".TorchOptim")
        assert vars(options.optimizer.init_args) == {"name": "RMSprop", "lr": 0.2, "options": {"alpha": 0.9}}


def test_readers_of_a_table() -> None:
    options = parsed(
        "--data", "x.csv", "--method", "Joint", "--data.modalities.audio", "audio",
        "--data.modalities.audio.sample_rate", "8000", "--data.modalities.words", "text",
    )  # fmt: skip
    readers = options.data.init_args.modalities
    assert readers["audio"].class_path.endswith("Audio")
    assert readers["audio"].init_args.sample_rate == 8000
    assert readers["words"].class_path.endswith("Text")


def test_options_may_come_before_their_class() -> None:
    options = parsed("--data.size", 10, "--method.tau", 0.1, "--data", "digits", "--method", "IGM")
    assert options.data.init_args.size == 10
    assert options.method.init_args.tau == 0.1
    readers = parsed(
        "--data.modalities.a.sample_rate", 8, "--data.modalities.a", "audio", "--method", "Joint", "--data", "x.csv"
    ).data.init_args.modalities
    assert readers["a"].init_args.sample_rate == 8


def test_zero_is_zero() -> None:
    options = parsed(*DIGITS, "--optimizer.lr", 0, "--optimizer.weight_decay", 0, "--sam", 0, "--optimizer.momentum", 0)
    assert (options.optimizer.init_args.lr, options.optimizer.init_args.weight_decay, options.sam) == (0, 0, 0)
    assert parsed("--data", "digits", "--method", "IGM", "--method.rho", 0, "--method.tau", 0).method.init_args.rho == 0


def test_encoders_get_their_inputs_from_the_data() -> None:
    options = parsed(*DIGITS, "--encoders.audio", "mlp", "--encoders.audio.dim", 8, "--encoders.image", "CNN")
    assert options.encoders["audio"].class_path == "counterpoise.encoders.MLP"
    assert (options.encoders["audio"].init_args.in_dim, options.encoders["audio"].init_args.dim) == (65 * 17, 8)
    assert options.encoders["image"].init_args.channels == 1
    # what is given stands
    assert (
        parsed(*DIGITS, "--encoders.audio", "MLP", "--encoders.audio.in_dim", 3).encoders["audio"].init_args.in_dim == 3
    )


def test_an_encoder_around_another(tmp_path: Path) -> None:
    inner = ["--encoders.image.encoder.dim", 8, "--encoders.image.encoder", "cnn"]
    made = parsed(*DIGITS, *inner, "--encoders.image", "frozen", "--encoders.image.reuse", "true").encoders["image"]
    assert made.class_path == "counterpoise.encoders.Frozen"
    assert made.init_args.encoder.class_path == "counterpoise.encoders.CNN"
    assert (made.init_args.encoder.init_args.channels, made.init_args.encoder.init_args.dim) == (1, 8)
    made = parsed(*DIGITS, *inner, "--encoders.image", "checkpointed").encoders["image"]
    assert made.class_path == "counterpoise.encoders.Checkpointed"
    assert (made.init_args.encoder.init_args.channels, made.init_args.encoder.init_args.dim) == (1, 8)
    file = tmp_path / "run.yaml"
    file.write_text(
        "data: digits\nmethod: joint\nencoders:\n  image:\n    class_path: FineTuned\n    init_args:\n"
        "      encoder: {class_path: ResNet18}\n      last: 1\n      lr: {all: 0.1}\n"
    )
    options = parsed("--config", file, "--encoders.image.last", 2)
    made = options.encoders["image"].init_args
    assert (made.encoder.class_path, made.encoder.init_args.channels) == ("counterpoise.encoders.ResNet18", 1)
    assert (made.last, made.lr) == (2, {"all": 0.1})
    assert refused(*DIGITS, "--encoders.image", "Frozen", "--encoders.image.encoder", "CN").startswith(
        "--encoders.image.encoder: Unknown encoder 'CN'. Did you mean 'CNN'?"
    )


def test_encoders_and_methods_by_import_path() -> None:
    options = parsed(*DIGITS, "--encoders.audio", "torch.nn.Flatten", "--method", f"{__name__}.Mine")
    assert options.encoders["audio"].class_path == "torch.nn.Flatten"
    made = fit_parser().instantiate(options)
    assert isinstance(made.encoders["audio"], nn.Flatten)
    assert type(made.method).__name__ == "Mine"
    message = refused("--data", "digits", "--method", f"{__name__}.Mine", "--method.strenght", 1)
    assert message == "--method: Unknown option of Mine 'strenght'. Did you mean 'strength'? Known: strength."


def test_a_file_takes_the_same_short_names(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "data: {class_path: table, init_args: {path: x.csv, modalities: {a: audio, t: {class_path: text, "
        "init_args: {length: 9}}}}}\nmethod: {class_path: igm, init_args: {tau: 0.2}}\nfusion: late\n"
        "optimizer: adam\nschedule: cosine\nepochs: 3\nsam: 0\n"
    )
    options = parsed("--config", file, "--epochs", 5, "--method.tau", 0.7)
    assert options.data.init_args.modalities["t"].init_args.length == 9
    assert options.data.init_args.modalities["a"].class_path.endswith("Audio")
    assert (options.epochs, options.method.init_args.tau, options.sam) == (5, 0.7, 0)
    assert options.optimizer.class_path.endswith("Adam")
    file.write_text("data: x.csv\nmethod: joint\n")
    assert parsed("--config", file).data.init_args.path == "x.csv"


def test_encoders_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("data: digits\nmethod: joint\nencoders: {image: {class_path: cnn, init_args: {dim: 16}}}\n")
    made = parsed("--config", file).encoders["image"].init_args
    assert (made.channels, made.dim) == (1, 16)


@pytest.mark.parametrize(
    ("arguments", "beginning"),
    [
        (["--epocs", "3"], "Unknown option '--epocs'. Did you mean '--epochs'? Known: --accelerator, "),
        (["--epoch", "3"], "Unknown option '--epoch'. Did you mean '--epochs'?"),
        (["--metod.tau", "1"], "Unknown option '--metod.tau'. Did you mean '--method'?"),
        (["--method", "IMG"], "--method: Unknown method 'IMG'. Did you mean 'IGM'? Known: AGM, AMCo, "),
        (["--method", "IGM", "--method.tua", "1"], "--method: Unknown option of IGM 'tua'. Did you mean 'tau'?"),
        (["--fusion", "Gatd"], "--fusion: Unknown fusion 'Gatd'. Did you mean 'Gated'? Known: Attention, Boosted, "),
        (["--fusion", "film", "--fusion.dmi", "3"], "--fusion: Unknown option of FiLM 'dmi'. Did you mean 'dim'?"),
        (["--optimizer", "Adm"], "--optimizer: Unknown optimizer 'Adm'. Did you mean 'Adam'?"),
        (["--optimizer.lrr", "1"], "--optimizer: Unknown option of SGD 'lrr'. Did you mean 'lr'?"),
        (["--schedule", "cosin"], "--schedule: Unknown schedule 'cosin'. Did you mean 'Cosine'?"),
        (["--schedule.warmp", "1"], "--schedule: Unknown option of Constant 'warmp'. Did you mean 'warmup'?"),
        (["--encoders.audio", "CN"], "--encoders.audio: Unknown encoder 'CN'. Did you mean 'CNN'?"),
        (["--encoders.audio", "CNN", "--encoders.audio.nrom", "x"], "--encoders.audio: Unknown option of CNN 'nrom'."),
        (["--encoders.adio", "CNN"], "--encoders: Unknown modality 'adio'. Did you mean 'audio'?"),
        (["--data.sise", "3"], "--data: Unknown option of Digits 'sise'. Did you mean 'size'?"),
        (["--data", "digit"], "--data: Unknown data 'digit'. Did you mean 'Digits'?"),
        (["--data", "x.csv", "--data.modalities.a", "adio"], "--data.modalities.a: Unknown reader 'adio'. Did you me"),
        (
            ["--data", "x.csv", "--data.modalities.a", "audio", "--data.modalities.a.rate", "8"],
            "--data.modalities.a: Unknown option of Audio 'rate'. Did you mean 'sample_rate'?",
        ),
    ],
)  # fmt: skip
def test_the_nearest_name_and_the_list(arguments: list[str], beginning: str) -> None:
    message = refused(*DIGITS, *arguments)
    assert message.startswith(beginning)
    assert "Known: " in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "1.5"], "--epochs must be a whole number; got '1.5'."),
        (["--clip_norm", "x"], "--clip_norm must be a number or null; got 'x'."),
        (["--progress", "maybe"], "--progress must be true or false; got 'maybe'."),
        (["--optimizer.lr", "x"], "--optimizer.lr must be a number; got 'x'."),
        (["--data.size", "x"], "--data.size must be a whole number or null; got 'x'."),
        (["--method", "IGM", "--method.rho", "x"], "--method.rho must be a number or a mapping; got 'x'."),
        (["--encoders.audio", "CNN", "--encoders.audio.dim", "x"], "--encoders.audio.dim must be a whole number; got"),
        (["--metrics", "accuracy,map"], "--metrics must be a list such as '[accuracy, map]', in brackets and quotes;"),
        (["--method", "IGM", "--method.order", "a,b"], "--method.order must be a list such as '[a, b]', in brackets"),
        (["--method", "nowhere.Foo"], "--method: No module named 'nowhere'."),
        (["--method", "torch.nn.Linear"], "--method: Import path torch.nn.Linear does not correspond to a subclass"),
        (
            ["--data", "x.xlsx"],
            "--data x.xlsx: there is no such file. A data set is a .csv, .tsv, .parquet",
        ),
        (["--data", "Table"], "--data.path is missing."),
        (["--epochs"], "--epochs needs a value."),
        (["three"], "Unexpected 'three': every value follows the --option that it is for."),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: No such file or directory."),
    ],
)
def test_wrong_values(arguments: list[str], message: str) -> None:
    assert refused(*DIGITS, *arguments).startswith(message)


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("--tau", "'--method.tau' (of DOMFN, IGM, LFM, ...)?"),
        ("--lr=0.1", "'--optimizer.lr' (of SGD, Adam, AdamW, ...)?"),
        (
            "--warmup",
            "'--method.warmup' (of SMV, OPM, DataRemixing, ...) or "
            "'--schedule.warmup' (of Constant, StepDecay, Milestones, ...)?",
        ),
        ("--device", "'--accelerator'?"),
        ("--out", "'--run_dir'?"),
    ],
)
def test_an_option_of_a_class_and_what_others_call_ours(option: str, meant: str) -> None:
    assert refused(*DIGITS, option, "1") == f"Unknown option '{option.split('=')[0]}'. Did you mean {meant}"


def test_a_path_that_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.csv").touch()
    Path("digits").mkdir()
    Path("sounds").mkdir()
    rule = "A data set is a .csv, .tsv, .parquet or .npz file, 'digits', or package.module.Class."
    joint = ["--method", "Joint"]
    assert refused("--data", "mine.cvs", *joint) == (
        f"--data mine.cvs: there is no such file. Did you mean 'mine.csv'? {rule}"
    )
    assert refused("--data", "sounds", *joint) == f"--data sounds is a folder. {rule}"
    assert refused("--data", "digit", *joint).endswith(f"Known: Arrays, Digits, Log, Table. {rule}")
    assert parsed("--data", "digits", *joint).data.class_path.endswith("Digits")
    assert refused("mine.csv", "--method", "Joint").endswith("Did you mean --data in front of it?")


def test_missing_options() -> None:
    assert refused("--data", "digits").startswith("--method is missing. Known: Unimodal, Joint")
    assert refused("--method", "IGM").startswith("--data is missing. A data set is a .csv, ")
    assert refused("--data", "digits", "--method.tau", "1").startswith("--method.tau must come with its class. Known")
    assert refused("--method", "IGM", "--data.size", "1").startswith("--data must come with its class. Known: Table")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoks: 1\n", "Unknown option '--epoks'. Did you mean '--epochs'?"),
        ("method: {class_path: IGM, init_args: {tua: 1}}\n", "--config: --method: Unknown option of IGM 'tua'."),
        ("method: img\n", "--config: --method: Unknown method 'img'. Did you mean 'IGM'?"),
        ("method: [\n", "--config c.yaml is no YAML of plain values: "),
        ("- a\n", "--config c.yaml must hold 'option: value' lines; it holds list."),
        ("epochs: many\n", "--config: --epochs must be a whole number; got 'many'."),
    ],
)
def test_wrong_files(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("c.yaml").write_text(text)
    assert refused(*DIGITS, "--config", "c.yaml").startswith(message)


def test_a_file_that_is_no_data_set(tmp_path: Path) -> None:
    file = tmp_path / "x.xlsx"
    file.write_text("")
    with pytest.raises(UsageError, match=r"A data set is a \.csv"):
        parsed("--data", file, "--method", "Joint")


def test_help_names_no_class_of_torch() -> None:
    text = fit_parser().format_help()
    assert "torch" not in text
    assert "known subclasses" not in text
    assert ".help [" not in text
    assert "default: SGD" in text
    assert text.startswith("usage: counterpoise fit --data DATA --method METHOD [options]\n")
    assert len(text.splitlines()) < 125
