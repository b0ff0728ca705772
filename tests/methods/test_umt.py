import copy

import pytest
import torch

from counterpoise.methods.umt import UMT
from counterpoise.methods.unimodal import Unimodal
from counterpoise.testing import NAMES, assert_same, trainer_for

TWO = NAMES[:2]


def fitted(make, **options):
    trainer, data = trainer_for(make, options.pop("names", TWO), **options)
    trainer.fit(data.train, data.val)
    return trainer, data


def teachers(trainer):
    return {k: v.detach().clone() for k, v in trainer.method.teachers.state_dict().items()}


def test_teachers_are_the_selected_unimodal_models():
    trainer, data = fitted(lambda: UMT(teacher_epochs=3))
    for m in TWO:
        alone, _ = trainer_for(lambda m=m: Unimodal(m), TWO, epochs=3)
        alone.fit(data.train, data.val)
        assert_same(dict(alone.model.encoders[m].state_dict()), dict(trainer.method.teachers[m].state_dict()))


def test_teachers_do_not_move():
    kept = []

    class Watching(UMT):
        def on_epoch_start(self, trainer):
            kept.append(teachers(trainer))
            trainer.method.train()

        def step(self, step):
            assert not any(module.training for module in self.teachers.modules())
            assert not any(p.requires_grad for p in self.teachers.parameters())
            return super().step(step)

    trainer, _ = fitted(lambda: Watching(teacher_epochs=1))
    for now in [*kept, teachers(trainer)]:
        assert_same(kept[0], now)
    grouped = {id(p) for group in trainer.current.optimizer.param_groups for p in group["params"]}
    assert not grouped & {id(p) for p in trainer.method.parameters()}


def test_loss_against_the_reference():
    lam, checked = 2.5, []

    class Checked(UMT):
        def loss(self, output, step):
            total = super().loss(output, step)
            if not checked:
                expected = torch.nn.functional.cross_entropy(output.logits.double(), step.batch.target)
                for m in TWO:
                    teacher = copy.deepcopy(self.teachers[m]).double().eval()
                    with torch.no_grad():
                        z = teacher(step.batch.inputs[m].double())
                    b, d = z.shape
                    mine = output.features[m].detach().double()
                    gap = [(float(mine[i, j]) - float(z[i, j])) ** 2 for i in range(b) for j in range(d)]
                    expected = expected + lam * sum(gap) / (b * d)
                torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=1e-6)
                checked.append(True)
            return total

    fitted(lambda: Checked(lam, teacher_epochs=1), epochs=1)
    assert checked


def test_a_student_that_equals_its_teachers_is_at_distance_zero():
    distances = []

    class Measured(UMT):
        def on_start(self, trainer):
            for m, teacher in self.teachers.items():
                teacher.load_state_dict(trainer.model.encoders[m].state_dict())

        def step(self, step):
            if not distances:
                step.model.eval()
                output = step.forward()
                distances.extend(self._distance(output.features[m], step, m).detach() for m in TWO)
                step.model.train()
            return super().step(step)

    fitted(Measured, epochs=1)
    assert [d.item() for d in distances] == [0.0, 0.0]


def test_absent_samples_do_not_count():
    checked = []

    class Checked(UMT):
        def loss(self, output, step):
            for m in TWO:
                present = step.present(m)
                if present is not None:
                    z, x = output.features[m][present], step.batch.inputs[m][present]
                    expected = (z - self.teachers[m](x)).square().mean()
                    torch.testing.assert_close(self._distance(output.features[m], step, m), expected)
                    checked.append(m)
            return super().loss(output, step)

    fitted(lambda: Checked(teacher_epochs=1), absent=0.4, epochs=1)
    assert set(checked) == set(TWO)


def test_a_resumed_run_does_not_train_teachers_again(tmp_path):
    starts = []

    class Counting(UMT):
        def on_start(self, trainer):
            starts.append(1)
            super().on_start(trainer)

    whole, data = fitted(lambda: Counting(teacher_epochs=1), run_dir=tmp_path / "run")
    again, _ = trainer_for(lambda: Counting(teacher_epochs=1), TWO, run_dir=tmp_path / "run")
    again.fit(data.train, data.val, resume=True)
    assert len(starts) == 1
    assert_same(teachers(whole), teachers(again))


@pytest.mark.parametrize("arguments", [{"lam": -1.0}, {"teacher_epochs": 0}, {"teacher_epochs": 1.5}])
def test_settings_out_of_range(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        UMT(**arguments)
