"""A model that was trained on pictures and waveforms in memory predicts on such, and on files of them, alike."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

import counterpoise as cp
from counterpoise.data import Audio, Image, from_arrays
from counterpoise.data.values import is_waveform

N = 24
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (N, 8, 8, 3), np.uint8)
WAVES = RNG.uniform(-1, 1, (N, 800)).astype(np.float32)
READERS = {"image": Image(size=8, flip=0.0), "sound": Audio(8000, 0.1, n_fft=64, hop=50)}


def test_pictures_and_waveforms(tmp_path: Path):
    import soundfile

    inputs: dict[str, Any] = {"image": list(PIXELS), "sound": [(wave, 8000) for wave in WAVES]}
    data = from_arrays(inputs, np.arange(N) % 2, readers=READERS, split=["train"] * 12 + ["val"] * 6 + ["test"] * 6)
    encoders = {"image": lambda: cp.encoders.CNN(3, dim=4), "sound": lambda: cp.encoders.CNN(dim=4)}
    built = cp.build_model(encoders, "Late", task=data.task, seed=0)
    trainer = cp.Trainer(built, cp.methods.Joint(), epochs=1, batch_size=6, progress=False, run_dir=tmp_path / "run")
    trainer.run(data)
    model = cp.load(tmp_path / "run")
    test = data.test
    assert test is not None
    expected = trainer.predict(test).fused.softmax(1).numpy()
    columns = {m: [values[int(i)] for i in test.ids] for m, values in inputs.items()}
    assert np.array_equal(model.predict_proba(columns), expected)
    i, file = int(test.ids[0]), io.BytesIO()
    Pillow.fromarray(PIXELS[i]).save(file, "png")
    Pillow.fromarray(PIXELS[i]).save(tmp_path / "x.png")
    soundfile.write(tmp_path / "x.wav", WAVES[i], 8000, subtype="FLOAT")
    samples: list[dict[str, Any]] = [
        {"image": PIXELS[i], "sound": (WAVES[i], 8000)},
        {"image": Pillow.fromarray(PIXELS[i]), "sound": {"array": WAVES[i], "sampling_rate": 8000}},
        {"image": file.getvalue(), "sound": str(tmp_path / "x.wav")},
        {"image": tmp_path / "x.png", "sound": (tmp_path / "x.wav").read_bytes()},
    ]
    for sample in samples:
        np.testing.assert_allclose(model.predict_proba(sample), expected[0], rtol=1e-6)


def test_two_texts_are_no_waveform():
    assert is_waveform((WAVES[0], 8000))
    assert is_waveform((WAVES[0].tolist(), np.int64(8000)))
    assert not any(map(is_waveform, [("one", "two"), ("one", 2.0), (1.0, 2.0), [WAVES[0], 8000], (WAVES[0], 1, 2)]))
