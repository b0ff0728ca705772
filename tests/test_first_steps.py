"""What newcomers type: names that complete, misspelt arguments, objects that say what they are."""

from __future__ import annotations

import json
import pydoc
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

import counterpoise as cp
from counterpoise import recipe
from counterpoise.data import Image
from counterpoise.engine import Cosine
from counterpoise.fusions import Late
from counterpoise.losses import Focal
from counterpoise.method import Info, Method


@pytest.fixture
def data() -> cp.Splits:
    rng = np.random.default_rng(0)
    inputs = {"audio": rng.normal(size=(60, 5)), "video": rng.normal(size=(60, 4))}
    there = np.arange(60) % 7 > 0
    return cp.from_arrays(inputs, np.array(["a", "b", "c"])[np.arange(60) % 3], present={"video": there})


def model_for(data: cp.Splits) -> cp.MultimodalModel:
    return cp.build_model({"audio": cp.encoders.MLP(5, dim=4), "video": cp.encoders.MLP(4, dim=4)}, task=data.task)


class TestNames:
    def test_complete(self):
        names = dir(cp)
        assert {*cp.__all__} <= {*names}
        assert {"data", "engine", "metrics", "report", "Trainer", "from_arrays"} <= {*names}
        assert all(hasattr(cp, name) for name in names)

    def test_listing_them_imports_nothing(self):
        code = "import sys, counterpoise; dir(counterpoise); print('torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"

    def test_help_is_of_what_users_call(self):
        text = re.sub(r"\(\s+", "(", pydoc.plain(pydoc.render_doc(cp)))  # Python 3.13 breaks lines after "("
        for part in ("class Trainer", "from_arrays(inputs", "build_model(encoders", "The short way from features"):
            assert part in text


class Own(Method):
    info = Info("gradient", "Of a user.", "None", "")

    def __init__(self, strength: float = 1.0):
        super().__init__()
        self.strength = strength


class OwnToo(Own):
    def __init__(self, *, other: int = 0, **rest: float):
        super().__init__(**rest)
        self.other = other


class TestMisspeltArguments:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda d: cp.Trainer(model_for(d), "Joint", epoch=3), "^Trainer: .* 'epoch'. Did you mean 'epochs'"),
            (lambda d: cp.Trainer(model_for(d), "Joint", device="cpu"), "Did you mean 'accelerator'"),
            (lambda d: cp.Trainer(model_for(d), "Joint", lr=0.1), r"'lr'. Did you mean optimizer=SGD\(lr=...\)"),
            (lambda d: cp.from_arrays({}, [], tests=0.2), "^from_arrays: .*'tests'. Did you mean 'test'"),
            (lambda d: cp.build_model({}, fusions="Late"), "^build_model: .*'fusions'. Did you mean 'fusion'"),
            (lambda d: cp.methods.OGM(alfa=0.1), "^OGM: .*'alfa'. Did you mean 'alpha'"),
            (lambda d: cp.methods.OGMGE(alfa=0.1), "^OGMGE: .*'alfa'. Did you mean 'alpha'"),
            (lambda d: cp.Adam(lrate=1), "^Adam: .*'lrate'. Did you mean 'lr'"),
            (lambda d: Cosine(warm=1), "^Cosine: .*'warm'. Did you mean 'warmup"),
            (lambda d: Focal(gama=2), "^Focal: .*'gama'. Did you mean 'gamma'"),
            (lambda d: Late({"a": 2}, 2, rules="sum"), "^Late: .*'rules'. Did you mean 'rule'"),
            (lambda d: cp.encoders.MLP(5, dims=4), "^MLP: .*'dims'. Did you mean 'dim'"),
            (lambda d: cp.encoders.CNN(chanels=1), "^CNN: .*'chanels'. Did you mean 'channels'"),
            (lambda d: Image(sise=8), "^Image: .*'sise'. Did you mean 'size'"),
            (lambda d: cp.Table("x.csv", lable="y"), "^Table: .*'lable'. Did you mean 'label'"),
            (lambda d: cp.digits(noise=1), "^digits: .*'noise'"),
            (lambda d: Own(strenght=2), "^Own: .*'strenght'. Did you mean 'strength'"),
            (lambda d: OwnToo(strenght=2), "^OwnToo: .*'strenght'. Did you mean 'strength'"),
        ],
    )  # fmt: skip
    def test_are_answered_with_the_nearest(self, data, call, message):
        with pytest.raises(TypeError, match=message):
            call(data)

    def test_right_ones_pass(self):
        assert OwnToo(other=3, strength=2.0).strength == 2.0
        assert recipe.__doc__

    def test_warnings_point_at_the_user(self):
        with pytest.warns(UserWarning, match="y: ") as seen:
            cp.from_arrays({"a": np.zeros((9, 2)) + np.arange(9)[:, None]}, ["a", "A", "b"] * 3, test=0.3, val=0.34)
        assert seen[0].filename == __file__


class TestWhatObjectsSay:
    def test_splits(self, data):
        assert repr(data) == (
            "Splits(42 samples to train on, 9 to select by, 9 to test on; audio, video; SingleLabel(3: 'a', 'b', 'c'))"
        )
        gone = int((~data.train.present["video"]).sum())
        assert repr(data.train) == (
            f"Subset(42 samples of audio, video, {gone} without video; SingleLabel(3: 'a', 'b', 'c'))"
        )

    def test_table(self, tmp_path):
        path = cp.data.write_digits(tmp_path, size=100)
        assert repr(cp.Table(path)) == f"Table({str(path)!r}: 100 rows of audio: Audio, image: Image; label 'label')"

    def test_model_and_trainer(self, data):
        model = model_for(data)
        count = sum(p.numel() for p in model.parameters())
        first = repr(model).splitlines()[1].strip()
        assert first == f"audio, video -> SingleLabel(3: 'a', 'b', 'c'); {count:,} parameters"
        assert "(encoders)" in repr(model)
        model.encoders["audio"].requires_grad_(False)
        frozen = sum(p.numel() for p in model.encoders["audio"].parameters())
        assert f"{count:,} parameters, of which {frozen:,} are frozen" in repr(model)
        trainer = cp.Trainer(model, cp.methods.OGM(), epochs=2, batch_size=8, progress=False)
        assert repr(trainer).startswith("Trainer(OGM, 2 epochs, not trained, batches of 8 by SGD; audio, video -> ")
        result = trainer.run(data, data="mine")
        assert repr(trainer).startswith("Trainer(OGM, epoch 2 of 2, batches of 8 by SGD; ")
        assert repr(result).startswith(
            f"Result(OGM on mine: test accuracy fused {result['test']['fused/accuracy']:.3f}, audio "
        )
        assert json.loads(json.dumps(result)) == result


class TestOneSample:
    def test_is_a_dict(self, data):
        rows = range(len(data.train))
        at = next(i for i in rows if data.train.present["video"][i])
        gone = next(i for i in rows if not data.train.present["video"][i])
        sample = data.train[at]
        assert list(sample) == ["audio", "video", "label"]
        for m in ("audio", "video"):
            assert torch.equal(sample[m], data.train.batch([at], m, None)[0])
        assert sample["label"] == data.train.target[at]
        assert data.train[gone]["video"] is None
        assert torch.equal(data.train[-1]["audio"], data.train[len(data.train) - 1]["audio"])
        assert len(list(data.val)) == len(data.val)

    def test_slices_are_splits(self, data):
        some = data.train[3:10:2]
        assert len(some) == 4
        assert torch.equal(some.batch([1], "audio", None), data.train.batch([5], "audio", None))

    def test_beyond_the_end(self, data):
        for at in (42, -43):
            with pytest.raises(IndexError, match=f"There are 42 samples; got the position {at}"):
                data.train[at]

    def test_a_modality_called_label(self):
        data = cp.from_arrays({"label": np.zeros((20, 2))}, np.arange(20) % 2)
        with pytest.raises(ValueError, match="A modality is called 'label'"):
            data.train[0]


class TestPredictingArrays:
    def test_as_of_a_split(self, data):
        trainer = cp.Trainer(model_for(data), cp.methods.Joint(), progress=False)
        rng = np.random.default_rng(1)
        arrays = {"audio": rng.normal(size=(7, 5)), "video": torch.randn(7, 4)}
        found = trainer.predict(arrays)
        inputs = {"audio": torch.from_numpy(arrays["audio"]).float(), "video": arrays["video"]}
        with torch.no_grad():
            want = trainer.model.eval()(inputs)
        torch.testing.assert_close(found.fused, want.logits)
        alone = trainer.predict({"audio": arrays["audio"]}, only=("audio",))
        torch.testing.assert_close(alone.fused, trainer.predict(arrays, only=("audio",)).fused)

    @pytest.mark.parametrize(
        ("samples", "message"),
        [
            ({"audio": np.zeros((3, 5))}, r"modality 'video' is missing. Pass only=\('audio',\)"),
            ({"audio": np.zeros((3, 5)), "vidoe": np.zeros((3, 4))}, "Unknown modality 'vidoe'. Did you mean 'video'"),
            (
                {"audio": np.zeros((3, 5)), "video": np.zeros((2, 4))},
                r"with one n; got audio: \(3, 5\), video: \(2, 4\)",
            ),
            ({"audio": np.zeros(5), "video": np.zeros(4)}, r"must be \(n, ...\) with one n"),
            ({"audio": np.zeros((3, 6)), "video": np.zeros((3, 4))}, r"encoders\['audio'\] \(MLP\) fails|was given"),
            ({"audio": ["a.wav"], "video": np.zeros((1, 4))}, r"samples\['audio'\] must be numbers"),
            ({}, "modality 'audio' is missing"),
        ],
    )
    def test_that_do_not_fit(self, data, samples, message):
        trainer = cp.Trainer(model_for(data), cp.methods.Joint(), progress=False)
        with pytest.raises(ValueError, match=message):
            trainer.predict(samples)
