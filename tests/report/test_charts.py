from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_hex

from counterpoise.analysis.landscape import Path, Surface
from counterpoise.report.charts import bars, curves, looks, points, spread, sweep, three_digits
from counterpoise.report.figures import (
    INK,
    PALETTE,
    STYLE,
    VARIABLES,
    log_axis,
    nested,
    new_figure,
    save_png,
    to_svg,
)
from counterpoise.report.surfaces import contours, histograms, lines, profiles, reliefs, spectra


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


def surface(scale: float = 1.0) -> Surface:
    steps = np.linspace(-0.7, 0.7, 9)
    x, y = np.meshgrid(steps, steps)
    return Surface(steps, steps, 0.5 + scale * (x**2 + 2 * y**2), 0.5)


def path(height: float) -> Path:
    at = np.linspace(-0.5, 1.5, 21)
    return Path(at, height * np.sin(np.pi * at) ** 2, np.clip(at, 0, 1))


SETTING = {"accuracy": {0.0: [0.5, 0.7], 0.4: [0.8, 0.9], 100.0: [0.6]}}
FIGURES = {
    "curves": lambda: curves(
        {"IGM": {"fused": [[0.1, 0.2], [0.3, 0.4]], "audio": [[0.1, 0.1]]}}, y="accuracy", share=True
    ),
    "stages": lambda: curves({"IGM": {"fused": [[0.1, 0.2]]}}, y="accuracy", x="stage", positions=["start", "audio 1"]),
    "sweep": lambda: sweep({"τ": SETTING, "ρ": SETTING}, y="fused score"),
    "bars": lambda: bars({"512x256": {"IGM": [45, 47], "no SAM": [109]}, "64x6": {"IGM": [23, 24]}}, x="mean value"),
    "points": lambda: points({"Joint": ([20, 22], [0.6, 0.7]), "PMR": ([400], [0.7])}, x="time (s)", y="accuracy"),
    "contours": lambda: contours({"IGM · audio": surface(), "MLA · audio": surface(3), "x": surface(1e6)}),
    "profiles": lambda: profiles({"audio": {"Joint": surface(3), "IGM": surface()}, "fused": {"IGM": surface()}}),
    "reliefs": lambda: reliefs({"audio": {"Joint": surface(3), "IGM": surface()}, "fused": {"IGM": surface()}}),
    "reliefs of four": lambda: reliefs({m: {"Joint": surface(3), "IGM": surface()} for m in "abcd"}),
    "reliefs of three methods": lambda: reliefs(
        {"audio": {"Joint": surface(), "IGM": surface(), "MLA": surface()}, "fused": {"IGM": surface()}}
    ),
    "lines": lambda: lines({"IGM": {"train": path(1.0), "val": path(2.0)}}, ends=("start", "end")),
    "accuracy on lines": lambda: lines({"IGM": {"train": path(1.0)}}, ends=("start", "end"), score="accuracy"),
    "histograms": lambda: histograms({"MLA": [-0.2, -0.0001, 0.3], "none": []}, x="cosine", seeds=2, threshold=0.08),
    "spectra": lambda: spectra({"512x256": {"IGM": [9.0, 1.0, 0.0]}, "256x64": {"IGM": [4.0]}}),
}


@pytest.mark.parametrize("name", FIGURES)
def test_svg_follows_the_page(name):
    svg = to_svg(FIGURES[name], name, f"what {name} shows")
    ET.fromstring(
        svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    )
    assert f'aria-label="what {name} shows"' in svg
    assert not any(stand_in in svg for stand_in in VARIABLES)
    left = {c.lower() for c in re.findall(r"#[0-9a-fA-F]{6}\b", svg)} - {"#000000"}
    assert not left, f"colours that do not follow the page: {left}"


@pytest.mark.parametrize("name", FIGURES)
def test_axes_have_names(name):
    figure = FIGURES[name]()
    seen = [ax for ax in figure.axes if ax.get_visible()]
    assert any(ax.get_xlabel() for ax in seen)
    assert any(ax.get_ylabel() for ax in seen) or name == "bars"


@pytest.mark.parametrize("name", FIGURES)
def test_no_formula_is_left_in_a_figure_that_parses_none(name):
    assert "mathdefault" not in texts(FIGURES[name]())


@pytest.mark.parametrize("which", ["x", "y"])
@pytest.mark.parametrize(("low", "high", "shown"), [(0.011, 0.06, "0.02"), (0.5, 3000, "100"), (1e-9, 1, "0.01")])
def test_numbers_on_logarithmic_axes_are_plain(which, low, high, shown):
    figure = new_figure(3, 3)
    ax = figure.subplots()
    ax.plot([low, high], [low, high])
    log_axis(ax, which)
    axis = getattr(ax, f"{which}axis")
    assert axis.get_scale() == "log"
    assert shown in texts(figure).split("\n")
    assert "mathdefault" not in "".join(label.get_text() for label in axis.get_ticklabels())


def texts(figure) -> str:
    figure.draw_without_rendering()
    found = [t.get_text() for t in figure.findobj(mpl.text.Text)]
    return "\n".join(found)


def test_png_is_a_picture_on_white(tmp_path):
    file = tmp_path / "new" / "bars.png"
    save_png(FIGURES["bars"], file, dpi=40)
    pixels = mpl.image.imread(file)
    assert pixels[0, -1, :3].tolist() == [1, 1, 1]
    assert pixels[..., :3].min() < 0.5


def test_spread_is_mean_and_sd_over_seeds():
    mean, sd, n = spread([[1, 2, 3], [3, 6]])
    np.testing.assert_allclose(mean, [2, 4, 3])
    np.testing.assert_allclose(sd[:2], [np.sqrt(2), 2 * np.sqrt(2)])
    assert np.isnan(sd[2])
    assert n == 2


def test_curves_draw_means_bands_and_seeds():
    figure = FIGURES["curves"]()
    (ax,) = figure.axes
    fused, audio = ax.lines
    np.testing.assert_allclose(fused.get_ydata(), [20, 30])
    np.testing.assert_allclose(audio.get_ydata(), [10, 10])
    assert fused.get_xdata().tolist() == [1, 2]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((20 - np.sqrt(200), 30 + np.sqrt(200)))
    assert ax.get_title(loc="left") == "IGM  (n = 1 to 2 seeds)"
    assert ax.get_ylabel() == "accuracy (%), mean ± sd"
    assert (to_hex(fused.get_color()), to_hex(audio.get_color())) == (INK, PALETTE[0])


def test_panels_with_quantities_of_their_own():
    runs = {"audio alone": [[0.1, 0.2]], "audio in joint": [[0.0, 0.1]], "image alone": [[0.3, 0.3]]}
    like = {"audio in joint": "audio alone"}
    figure = curves({"accuracy": runs, "loss": runs}, y={"accuracy": "test accuracy", "loss": "test loss"}, like=like)
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert labels == ["test accuracy", "test loss"]  # of one seed there is no spread
    alone, joint, image = figure.axes[0].lines
    assert alone.get_color() == joint.get_color() != image.get_color()
    assert (alone.get_linestyle(), joint.get_linestyle()) == ("-", "--")


def test_lines_that_agree_show_around_each_other():
    assert nested([[1, 2, 3], [1, 2, 4], [1, 5, 4]]) == [1, 0, 0]
    assert nested([[1, 2, 3], [1, 2, 4], [1, 5, 4]], dots=True) == [2, 1, 0]
    assert nested([[np.nan, np.nan], [np.nan, np.nan], []]) == [0, 0, 0]
    rows = {"all": [[0.5, 0.6]], "without": [[0.5, 0.6]], "none": [[0.5, 0.7]]}
    (ax,) = curves({"fused": rows}, y="accuracy", positions=["a 1", "b 1"]).axes
    wide, narrow, apart = (line.get_linewidth() for line in ax.lines)
    assert wide > narrow == apart  # a common point is no common line
    sizes = [line.get_markersize() for line in ax.lines]
    assert sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize("count", [2, 5, 6, 9])
def test_a_legend_is_no_wider_than_its_figure(count):
    names = {f"turns + SAM + GM, setting {i}": {"fused": [0.1]} for i in range(count)}
    figure = bars({"a": {name: series["fused"] for name, series in names.items()}}, x="x")
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().width <= figure.bbox.width


def test_markers_of_a_sweep_are_at_their_values():
    (ax,) = sweep({"τ": {"accuracy": {0.0: [0.5], 1.0: [0.6]}, "map": {0.0: [0.7], 1.0: [0.8]}}}, y="score").axes
    means = [line for line in ax.lines if line.get_linestyle() == "-"]
    assert [line.get_xdata(orig=False).tolist() for line in means] == [[0, 1], [0, 1]]
    assert ax.get_ylabel() == "score (%)"


def test_named_positions():
    (ax,) = FIGURES["stages"]().axes
    assert [t.get_text() for t in ax.get_xticklabels()] == ["start", "audio 1"]


def test_sweep_spaces_values_evenly_in_order():
    figure = FIGURES["sweep"]()
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["0", "0.4", "100"]
    line = next(line for line in ax.lines if line.get_linestyle() == "-" and line.get_marker() == "o")
    np.testing.assert_allclose(line.get_ydata(orig=False), [60, 85, 60])
    np.testing.assert_allclose(line.get_xdata(orig=False), [0, 1, 2])
    assert ax.get_title(loc="left") == "τ  (n = 1 to 2 seeds)"


def test_bars_are_as_long_as_the_means():
    figure = FIGURES["bars"]()
    (ax,) = figure.axes
    assert [bar.get_width() for bar in ax.patches] == [46, 109, 23.5]
    assert {"46.0", "109", "23.5", "512x256", "64x6"} <= set(texts(figure).split("\n"))
    assert "n = 1 to 2 seeds" in ax.get_xlabel()
    heights = [bar.get_y() for bar in ax.patches]
    assert heights == sorted(heights)
    assert ax.yaxis_inverted()


def test_bars_leave_room_for_whiskers_and_none_for_what_is_not_there():
    groups = {"audio alone": {"audio": [0.01, 0.09]}, "plain": {"audio": [0.02], "image": [0.03], "fused": [0.04]}}
    figure = bars(groups, x="mean value")
    (ax,) = figure.axes
    assert ax.get_xlim()[1] > 0.05 + np.std([0.01, 0.09], ddof=1)
    first, *rest = [bar.get_y() + bar.get_height() / 2 for bar in ax.patches]
    np.testing.assert_allclose(ax.get_yticks(), [first, np.mean(rest)])  # names stand at their bars
    assert {"0.0500", "0.0200", "0.0400"} <= set(texts(figure).split("\n"))


def test_bars_of_a_run_that_diverged():
    (ax,) = bars({"a": {"fused": [np.nan, 0.5]}, "b": {"fused": [np.nan]}}, x="score", share=True).axes
    assert [bar.get_width() for bar in ax.patches] == [50]
    assert ax.get_xlabel() == "score (%), n = 0 to 1 seeds"  # and no spread, which one seed has none of


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0.00"), (0.03, "0.0300"), (23.46, "23.5"), (1234.0, "1234"), (-0.5, "-0.500")]
)
def test_three_digits(value, text):
    assert three_digits(value) == text


def test_one_epoch_has_one_tick():
    assert list(curves({"a": {"x": [[1.0]]}}, y="score").axes[0].get_xticks()) == [1]


def test_dashes_and_hollow_markers_tell_kin_apart_in_the_legend():
    figure = curves({"a": {"x": [[1, 2]], "x in": [[1, 2]]}}, y="score", like={"x in": "x"})
    alone, inside = figure.legends[0].legend_handles
    assert alone.get_color() == inside.get_color()
    assert alone.get_linestyle() != inside.get_linestyle()
    assert alone.get_markerfacecolor() != inside.get_markerfacecolor()
    assert figure.legends[0].handlelength > 3  # of the font's size: a marker with a dash on both sides


def test_points_are_labelled_means_on_a_fitting_axis():
    figure = FIGURES["points"]()
    (ax,) = figure.axes
    assert ax.get_xscale() == "log"  # 21 to 400
    centres = [tuple(float(v[0]) for v in line.get_data()) for line in ax.lines if line.get_marker() == "D"]
    np.testing.assert_allclose(centres, [(21, 0.65), (400, 0.7)])
    assert {"Joint", "PMR"} <= set(texts(figure).split("\n"))
    near = points({"a": ([1], [0.5]), "b": ([2], [0.5])}, x="x", y="y", share=True)
    assert near.axes[0].get_xscale() == "linear"
    assert (near.axes[0].get_ylabel(), near.axes[0].get_xlabel()) == ("y (%)", "x, n = 1 seed")
    assert ax.get_ylabel().endswith("mean ± sd")


def test_contours_share_levels_and_say_the_numbers():
    figure = contours({"a": surface(), "b": surface(3)}, columns=1)
    written = texts(figure)
    rise = 3 * 0.49
    assert f"centre 0.5, corners {rise:+.3g}" in written
    assert f"centre 0.5, corners {3 * rise:+.3g}" in written
    assert written.endswith("lines every 0.2")
    levels = [[c.levels.tolist() for c in ax.collections if hasattr(c, "levels")] for ax in figure.axes]
    assert levels[0] == levels[1]
    assert levels[0][0][:3] == [0, 0.2, 0.4]
    assert figure.axes[0].get_aspect() == 1


def test_a_surface_that_explodes_does_not_flatten_the_others():
    figure = FIGURES["contours"]()
    levels = next(c.levels for c in figure.axes[0].collections if hasattr(c, "levels"))
    assert levels.max() < 50
    assert sum(levels < 1.5) > 2
    broken = surface()
    broken.loss[0, 0] = np.inf
    assert "centre 0.5" in texts(contours({"a": broken}))


def test_numbers_of_a_surface_are_outside_it():
    figure = FIGURES["contours"]()
    figure.draw_without_rendering()
    for ax in figure.axes[:3]:
        (numbers,) = (text for text in ax.texts if text.get_text().startswith("centre"))
        box, title = numbers.get_window_extent(), ax.title.get_window_extent()
        assert ax.get_window_extent().y1 <= box.y0
        assert box.y1 <= title.y0


def test_profiles_lay_the_methods_over_each_other():
    figure = FIGURES["profiles"]()
    audio, fused = ([line for line in ax.lines if len(line.get_xdata()) == 9] for ax in figure.axes if ax.get_visible())
    steps = np.linspace(-0.7, 0.7, 9)
    for line, scale in zip(audio, (3, 1), strict=True):
        np.testing.assert_allclose(line.get_xdata(), steps)
        np.testing.assert_allclose(line.get_ydata(), 0.5 + scale * steps**2)
    # a method looks the same in all panels
    assert [line.get_color() for line in fused] == [audio[1].get_color()]
    assert audio[0].get_color() != audio[1].get_color()
    assert [ax.get_title(loc="left") for ax in figure.axes[:2]] == ["audio", "fused"]
    low, high = figure.axes[0].get_ylim()
    assert 0.25 < low < 0.5  # near the least loss: from 0 on, the sides would look flat
    assert high > 0.5 + 3 * 0.49
    assert "filter norms" in figure.axes[0].get_xlabel()
    broken = surface()
    broken.loss[4, 0] = np.nan
    profiles({"a": {"b": broken}})


def test_reliefs_are_as_high_as_the_loss():
    figure = FIGURES["reliefs"]()
    audio, fused = ([(c, getattr(c, "_segments3d")) for c in ax.collections] for ax in figure.axes)  # noqa: B009
    for (_, lines_of), scale in zip(audio, (3, 1), strict=True):
        x, y, z = np.concatenate([np.asarray(line) for line in lines_of]).T
        np.testing.assert_allclose(z, 0.5 + scale * (x**2 + 2 * y**2))
        assert len(np.unique(np.stack([x, y]), axis=1).T) == 81
    colours = [[to_hex(c.get_edgecolor()[0]) for c, _ in found] for found in (audio, fused)]
    assert colours == [[PALETTE[0], PALETTE[1]], [PALETTE[1]]]
    labels = [getattr(figure.axes[0], f"get_{axis}label")() for axis in "xyz"]
    assert labels == ["direction 1", "direction 2", "training loss"]
    assert figure.axes[0].get_zlim()[0] == 0
    broken = surface()
    broken.loss[0, 0] = np.inf
    assert reliefs({"a": {"b": broken}}).axes[0].get_zlim()[1] < 4


def test_reliefs_of_three_methods_stand_beside_each_other_on_equal_axes():
    three = {"Joint": surface(3), "IGM": surface(), "MLA": surface(2)}
    figure = reliefs({"audio": three, "fused": {"IGM": surface()}})
    shown = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in shown] == ["audio, Joint", "audio, IGM", "audio, MLA", "fused, IGM"]
    assert [len(ax.collections) for ax in shown] == [1, 1, 1, 1]
    assert len({ax.get_zlim() for ax in shown[:3]}) == 1
    columns = [round(ax.get_position().x0, 2) for ax in shown]
    assert columns[3] == columns[1]  # below its method


def test_lines_name_their_ends_and_barrier():
    written = texts(FIGURES["lines"]())
    assert {"start", "end", "IGM", "barrier: train 1, val 2"} <= set(written.split("\n"))


def test_lines_of_accuracy_are_in_per_cent():
    figure = FIGURES["accuracy on lines"]()
    np.testing.assert_allclose(figure.axes[0].lines[0].get_ydata(), 100 * path(1.0).accuracy)
    assert "training accuracy (%)" in texts(figure)
    assert "barrier" not in texts(figure)


def test_profiles_do_not_cut_off_the_highest():
    figure = profiles({"audio": {"flat": surface(0.001)}})
    assert figure.axes[0].get_ylim()[1] > surface(0.001).line.max() + 0.02


def test_histograms_describe_the_values():
    figure = FIGURES["histograms"]()
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles[0] == "MLA  (n = 3, 2 seeds): mean 0.033, median 0.000, 66.7 % below 0.08"
    assert titles[1] == "none  (n = 0, 2 seeds): no values"
    stairs = figure.axes[0].patches[0].get_data()
    assert stairs.values.sum() == pytest.approx(100)
    assert len(stairs.values) == 80
    assert (stairs.edges[0], stairs.edges[-1]) == (-0.2, 0.3)
    same = histograms({"one": [0.5, 0.5]}, x="cosine", seeds=1, threshold=0.08)
    assert "mean 0.500" in same.axes[0].get_title(loc="left")


def test_spectra_are_logarithmic_and_leave_rounding_out():
    ax = FIGURES["spectra"]().axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    assert ax.lines[0].get_ydata().tolist() == [9, 1]
    assert ax.lines[1].get_ydata() == pytest.approx([10 / 3, 10 / 3])  # the mean counts all of them
    assert ax.get_title(loc="left") == "512x256  (d = 3)"


def test_looks_tell_many_series_apart():
    names = ["fused", *"abcdefgh"]
    found = looks(names)
    assert list(found) == names
    assert found["fused"].colour == INK
    assert len({(look.colour, str(look.line)) for look in found.values()}) == len(names)
