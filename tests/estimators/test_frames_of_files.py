"""A data frame with names of files, texts and numbers goes into an estimator as it is."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
from PIL import Image
from sklearn.model_selection import cross_val_predict

from counterpoise.data import write_digits
from counterpoise.estimators import Bundle, MultimodalClassifier

OPTIONS = {"epochs": 1, "random_state": 0, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def frame(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    frame = pd.read_csv(write_digits(folder, size=100), dtype={"label": str}).head(48)
    frame["image"] = [str(folder / name) for name in frame["image"]]
    frame["note"] = [None if i % 8 == 3 else f"note {i % 3}" for i in range(len(frame))]
    frame["age"], frame["weight"] = np.arange(48) % 7, np.linspace(50, 90, 48)
    return frame[["image", "note", "age", "weight"]]


Y = np.arange(48) % 2


def test_each_column_of_files_or_texts_is_a_modality_and_the_numbers_are_one(frame):
    model = MultimodalClassifier(**OPTIONS).fit(frame, Y)
    assert model.model_.modalities == ("X", "image", "note")
    assert {m: type(reader).__name__ for m, reader in model.readers_.items()} == {"image": "Image", "note": "Text"}
    assert model.readers_["image"].shape[-2:] == (8, 8)
    assert list(model.feature_names_in_) == list(frame.columns)
    votes = model.votes(frame)
    assert np.isnan(votes["note"]).all(1).tolist() == [i % 8 == 3 for i in range(48)]
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict_proba(frame.tail(5)), model.predict_proba(frame.tail(5)))


def test_the_map_divides_them_and_polars_gives_the_same(frame):
    model = MultimodalClassifier(modalities={"body": ["age", "weight"], "face": ["image"], "said": "note"}, **OPTIONS)
    expected = model.fit(frame, Y).predict_proba(frame)
    assert model.model_.modalities == ("body", "face", "said")
    assert np.array_equal(model.fit(pl.from_pandas(frame), Y).predict_proba(pl.from_pandas(frame)), expected)
    assert cross_val_predict(model, frame, Y, cv=2).shape == (48,)


def test_pictures_in_a_bundle():
    pictures = [Image.new("RGB", (8, 8), "white" if label else "black") for label in Y]
    model = MultimodalClassifier(**OPTIONS)
    model.fit(Bundle({"picture": pictures, "number": np.random.default_rng(0).normal(size=(48, 2))}), Y)
    assert model.readers_["picture"].channels == 3


def test_what_cannot_be_read_is_said(frame, tmp_path):
    fit = MultimodalClassifier(**OPTIONS).fit
    with pytest.raises(ValueError, match=r"modalities\['all'\]: column 'note' holds no numbers.*OneHotEncoder"):
        MultimodalClassifier(modalities={"all": ["age", "weight", "note"], "face": ["image"]}, **OPTIONS).fit(frame, Y)
    gone = frame.assign(image=[*frame["image"][:-1], str(tmp_path / "gone.png")])
    with pytest.raises(ValueError, match=r"X\['image'\], sample 47: .*gone.png: no such file"):
        fit(gone, Y)
    model = fit(frame, Y)
    with pytest.raises(ValueError, match=r"X must have the columns of fit, image, note, age, weight"):
        model.predict(frame[["note", "image", "age", "weight"]])
