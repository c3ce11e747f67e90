"""Trials whose masks move: what is held, what is recorded, and how they resume."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from masksweep.strategies import Invalid
from masksweep.strategies.core.slots import slots_of
from masksweep.strategies.core.weights import describe
from masksweep.strategies.schedules.base import Course
from masksweep.sweeps import results
from masksweep.sweeps.config.trial import Trial
from masksweep.sweeps.results import Report
from masksweep.sweeps.training import loop as training_loop
from masksweep.sweeps.training import run_trial, setup
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.loop import single_trial_loop
from masksweep.sweeps.training.preflight import check_plans
from tests.support.selection import by_default
from tests.support.trials import trial as make


def given_masks(density: float) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    sizes = {"hidden_1/kernel": (64, 12), "hidden_2/kernel": (12, 8)}
    masks = {name: np.arange(np.prod(shape)) for name, shape in sizes.items()}
    for mask in masks.values():
        rng.shuffle(mask)
    return {
        name: (masks[name] < round(density * masks[name].size)).astype(int).reshape(shape).tolist()
        for name, shape in sizes.items()
    }


PATTERN = {"name": "random", "sparsity": 0.8, "distribution": "erk"}
SCHEDULES: dict[str, dict[str, Any]] = {
    "rigl": {"name": "rigl", "frequency": 4},
    "set": {"name": "set", "frequency": 5, "deviation": 0.1},
    "gradual": {"name": "gradual", "frequency": 4},
    "one_shot": {"name": "one_shot", "begin_step": 7},
    "iterative": {"name": "iterative", "rounds": 3},
    "rewinding": {"name": "iterative", "rounds": 2, "rewind_to": 4},
    "dense_sparse_dense": {"name": "dense_sparse_dense"},
    "swap": {"name": "swap", "steps": [5, 9]},
    "given": {"name": "given", "steps": [5, 9], "masks": [given_masks(0.5), given_masks(0.2)]},
}
STEPS = {"steps": 20, "batch_size": 100, "jit": False}


def moving(schedule: str, strategy: str = "hard_mask", **sections: Any) -> Trial:
    return make(**moving_sections(schedule, strategy, **sections))


def moving_sections(schedule: str, strategy: Any, **sections: Any) -> dict[str, Any]:
    # the given masks keep at most as many entries as the start, so every strategy can follow them
    pattern = {"name": "random", "sparsity": 0.5} if schedule == "given" else PATTERN
    settings = {"pattern": pattern, "train": STEPS, "speed": {"rounds": 0}, **sections}
    return {"strategy": strategy, "schedule": SCHEDULES[schedule], **settings}


def changes(result: results.TrialResult) -> list[dict[str, Any]]:
    recorded: list[dict[str, Any]] = json.loads(result.artifacts["schedule.json"])
    return recorded


STRATEGIES = ("weight_mask", "projection", "hard_mask", "sparse_values", "sparse_tensor")
SOME = [
    *((schedule, "hard_mask") for schedule in SCHEDULES),
    ("rigl", "weight_mask"),
    *(("gradual", strategy) for strategy in ("projection", "sparse_values", "sparse_tensor")),
]


@pytest.mark.parametrize(
    ("schedule", "strategy"), by_default(SOME, [(c, s) for c in SCHEDULES for s in STRATEGIES])
)
def test_what_is_cut_stays_cut_at_every_step_of_every_schedule(
    schedule: str, strategy: str
) -> None:
    result = run_trial.run(moving(schedule, strategy))
    assert result.metrics["integrity/ok"] == 1.0
    assert result.metrics["schedule/violated_changes"] == 0
    assert result.metrics["schedule/cut"] > 0
    if strategy == "hard_mask":
        assert result.metrics["schedule/stale_slots"] == 0
    start, *records = changes(result)
    assert start["step"] == 0
    assert len(records) == result.metrics["schedule/changes"] > 0
    assert result.metrics["speed/mask_change_ms"] > 0
    sparsity = 0.0 if schedule == "dense_sparse_dense" else 0.8
    assert result.metrics["sparsity/achieved"] == pytest.approx(sparsity, abs=1e-3)


@pytest.mark.parametrize("schedule", by_default(["rigl", "gradual"], ["rigl", "set", "gradual"]))
def test_momentum_revives_what_was_cut_under_gradient_mask_and_the_audit_says_so(
    schedule: str,
) -> None:
    result = run_trial.run(moving(schedule, "gradient_mask"))
    assert result.metrics["integrity/ok"] == 0
    records = changes(result)
    assert records[0]["violations"] == 0
    assert [r["violations"] > 0 for r in records[1:]] == [True] * len(records[1:])
    assert result.metrics["schedule/violated_changes"] == len(records) - 1
    assert result.metrics["schedule/stale_slots"] > 0
    assert "slots" in result.tags["integrity.through"]
    assert result.tags["integrity.stale_slots"] == "momentum, velocity"
    assert records[1]["stale_slots"].keys() == {"momentum", "velocity"}


def test_a_leak_that_begins_late_has_its_cause() -> None:
    """In one repetition, of which only the steps since the last audit are taken one by one."""
    late = {"name": "swap", "steps": [1203]}
    train = {"steps": 1230, "batch_size": 10, "jit": False}
    sections = moving_sections("swap", "gradient_mask", train=train)
    result = run_trial.run(make(**{**sections, "schedule": late}))
    start, change = changes(result)
    assert (start["violations"], change["violations"] > 0) == (0, True)
    assert result.tags["integrity.through"] == "slots"
    assert result.tags["integrity.stale_slots"] == "momentum, velocity"


def test_masks_are_audited_before_each_change_however_rare_audits_are() -> None:
    result = run_trial.run(moving("rigl", "gradient_mask", audit={"every": 1000}))
    assert result.metrics["schedule/violated_changes"] == result.metrics["schedule/changes"]


def test_nothing_moves_under_an_optimizer_without_slots() -> None:
    result = run_trial.run(moving("rigl", "gradient_mask", optimizer={"name": "sgd"}))
    assert result.metrics["integrity/ok"] == 1.0


def test_the_control_leaks() -> None:
    result = run_trial.run(moving("rigl", "init_only"))
    assert result.metrics["integrity/ok"] == 0
    assert result.metrics["schedule/violated_changes"] == result.metrics["schedule/changes"]


def test_the_masks_of_the_dense_control_cannot_move() -> None:
    dense = moving("rigl", "dense")
    assert dense.id == make(strategy="dense", train=STEPS, speed={"rounds": 0}).id
    assert "schedule/changes" not in run_trial.run(dense).metrics


@pytest.mark.parametrize("schedule", by_default(["rigl", "gradual"], SCHEDULES))
def test_strategies_that_store_kept_values_follow_every_schedule(schedule: str) -> None:
    """They train the same weights as `hard_mask`, to the last digits."""
    finals = []
    for strategy in ("hard_mask", "sparse_values", "sparse_tensor"):
        loop = single_trial_loop(setup.start(moving(schedule, strategy)))
        loop.run()
        finals.append((loop.program.single_program.effective(), loop.plan))
    (expected, plan), *others = finals
    for weights, other_plan in others:
        for masked, other in zip(plan.weights, other_plan.weights, strict=True):
            np.testing.assert_array_equal(masked.mask, other.mask)
        for name, array in weights.items():
            np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_slots_of_kept_values_are_not_taken_for_those_of_the_weight() -> None:
    """The values of a bias have its shape, and not its order."""
    result = run_trial.run(moving("gradual", "sparse_values", targets=["hidden_1/*"]))
    assert result.metrics["integrity/ok"] == 1.0
    assert result.metrics["schedule/stale_slots"] == 0
    assert result.metrics.get("integrity/slot_leak", 0.0) == 0


@pytest.mark.parametrize("optimizer", [{"name": "ftrl"}, {"name": "sgd", "use_ema": True}], ids=str)
def test_an_optimizer_cannot_move_what_is_cut_by_the_values_that_are_left_over(
    optimizer: dict[str, Any],
) -> None:
    """FTRL turns a zero to -0.0, and an average has what the entry was before it was cut."""
    result = run_trial.run(moving("gradual", "sparse_tensor", optimizer=optimizer))
    assert result.metrics["integrity/peak_violations"] == 0


def test_sparse_tensor_takes_a_format_for_scattered_masks_if_they_move() -> None:
    """The masks begin as whole rows, and RigL scatters them."""
    pattern = {"name": "rows", "sparsity": 0.5}
    result = run_trial.run(moving("rigl", "sparse_tensor", pattern=pattern))
    assert result.metrics["integrity/ok"] == 1.0
    explicit = {"name": "sparse_tensor", "format": "compact"}
    refused = run_trial.run(make(**moving_sections("rigl", explicit, pattern=pattern)))
    assert (refused.status, refused.reason) == (
        "skipped", "schedule=rigl: its masks cannot move"
    )  # fmt: skip


@pytest.mark.parametrize(
    "strategy", [{"name": "sparse_tensor", "format": "coo"}, "var_list", "loss_mask"], ids=str
)
def test_a_strategy_that_cannot_follow_is_skipped_with_the_reason(strategy: Any) -> None:
    pattern = {"name": "columns", "sparsity": 0.5}
    result = run_trial.run(moving("gradual", strategy, pattern=pattern, targets=["output/kernel"]))
    assert result.status == "skipped"
    assert "schedule=gradual: its " in result.reason


@pytest.mark.parametrize(
    ("held", "strategy"),
    [("constant", "hard_mask"), ("init", "hard_mask"), ("init", "sparse_values")],
)
def test_what_is_cut_is_held_at_its_value(held: str, strategy: str) -> None:
    """A constant, or the value that the entry had when it was cut."""
    loop = single_trial_loop(setup.start(moving("gradual", strategy, held=held)))
    loop.run(7)
    before = loop.program.single_program.effective()
    loop.run(8)
    middle = loop.plan
    loop.run(20)
    after, final = loop.program.single_program.effective(), loop.plan
    for old, new in zip(middle.weights, final.weights, strict=True):
        name = new.weight.name
        assert (old.mask != new.mask).any()
        np.testing.assert_array_equal(after[name][~new.mask], new.held[~new.mask])
        # what was cut at the change before keeps the held value of that change
        np.testing.assert_array_equal(new.held[~old.mask], old.held[~old.mask])
        if held == "constant":
            assert np.unique(new.held).size == 1
    assert before.keys() == after.keys()


def test_a_value_that_leaked_does_not_become_the_held_value() -> None:
    """With `held=init`, an entry that stays masked keeps the held value of its cut."""
    loop = single_trial_loop(setup.start(moving("gradual", "gradient_mask", held="init")))
    loop.run(7)
    first = loop.plan
    loop.run(9)
    leaked, second = loop.program.single_program.effective(), loop.plan
    for old, new in zip(first.weights, second.weights, strict=True):
        cut = ~old.mask
        assert (leaked[new.weight.name][cut] != old.held[cut]).any()
        np.testing.assert_array_equal(new.held[cut], old.held[cut])


def test_held_init_means_the_value_at_the_cut() -> None:
    loop = single_trial_loop(setup.start(moving("one_shot", held="init")))
    loop.run(6)
    (x, y), program = loop.next_batch(), loop.program.single_program
    program.training.step(x, y)  # the seventh step
    expected = program.effective()
    again = single_trial_loop(setup.start(moving("one_shot", held="init")))
    again.run(8)
    for masked in again.plan.weights:
        assert not masked.mask.all()
        at_cut = expected[masked.weight.name][~masked.mask]
        np.testing.assert_allclose(masked.held[~masked.mask], at_cut, rtol=1e-5)


def test_regrown_entries_start_from_zero_and_with_new_slots() -> None:
    loop = single_trial_loop(setup.start(moving("rigl", "weight_mask")))
    loop.run(3)
    before = {w.weight.name: w.mask for w in loop.plan.weights}
    loop.run(4)  # the change comes after the fourth step
    program = loop.program.single_program
    weights, training = program.effective(), program.training
    for weight, value in zip(training.weights, training.values, strict=True):
        if weight.name not in before:
            continue
        now = training.masked[weight.name].kept.numpy()
        grown = now & ~before[weight.name]
        assert grown.any()
        assert not weights[weight.name][grown].any()
        slots = slots_of(training, value)
        assert slots
        for slot, fresh in slots:
            assert not (slot - fresh)[grown].any()
            assert (slot - fresh)[now & ~grown].any()


def test_rewinding_restores_all_weights_and_slots() -> None:
    for rewind_to, schedule in ((0, "iterative"), (4, "rewinding")):
        loop = single_trial_loop(setup.start(moving(schedule)))
        loop.run(max(rewind_to, 1))
        saved = loop.changes.saved if loop.changes else {}
        at = saved if rewind_to == 0 else loop.program.single_program.effective()
        loop.run(20 // (4 if schedule == "iterative" else 3))
        program = loop.program.single_program
        weights, training = program.effective(), program.training
        for name, array in weights.items():
            masked = training.masked.get(name)
            kept = masked.kept.numpy() if masked else np.ones(array.shape, bool)
            np.testing.assert_array_equal(array[kept], at[name][kept])
            assert not array[~kept].any()
        for value in training.trained:
            assert all(not (slot - fresh).any() for slot, fresh in slots_of(training, value))
        if rewind_to == 0:
            initial = setup.start(moving(schedule)).weights
            for name in initial:
                np.testing.assert_array_equal(saved[name], initial[name])


def test_the_dense_gradients_are_those_of_the_plain_model() -> None:
    """For each strategy, the gradient by the effective weight: at masked entries too."""
    found = []
    for strategy in ("weight_mask", "gradient_mask", "sparse_values", "sparse_tensor"):
        started = setup.start(moving("rigl", strategy))
        loop = single_trial_loop(started)
        loop.run(2)
        program, (x, y) = loop.program.single_program, loop.next_batch()
        found.append({n: g.numpy() for n, g in program.dense_gradients(x, y).items()})
        if strategy != "weight_mask":
            continue
        model = setup.network(started.trial, started.data).build(0)
        by_name = program.effective()
        for weight, variable in zip(describe(model), model.trainable_variables, strict=True):
            variable.assign(by_name[weight.name])
        with tf.GradientTape() as tape:
            loss = program._loss(y, model(x, training=True))
        plain = tape.gradient(loss, model.trainable_variables)
        for weight, gradient in zip(describe(model), plain, strict=True):
            if weight.name in found[0]:
                np.testing.assert_allclose(found[0][weight.name], gradient, rtol=1e-5, atol=1e-7)
                masked = ~program.training.masked[weight.name].kept.numpy()
                assert np.abs(found[0][weight.name][masked]).max() > 0
    for other in found[1:]:
        for name, gradient in found[0].items():
            np.testing.assert_allclose(other[name], gradient, rtol=1e-4, atol=1e-6)


def test_nothing_is_compiled_again_at_a_change() -> None:
    loop = single_trial_loop(setup.start(moving("gradual")))
    loop.run(2)
    function = loop.program.single_program.loop.function
    before = function.experimental_get_tracing_count()
    loop.run()
    assert function.experimental_get_tracing_count() == before


# -- resuming ------------------------------------------------------------------------------------


class BrokenOff(Exception):
    pass


@pytest.mark.parametrize("schedule", by_default(["rigl", "rewinding"], SCHEDULES))
def test_a_trial_that_is_broken_off_in_mid_schedule_resumes_to_the_same_bits(
    schedule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_loop, "CHUNK_SECONDS", 0.0)  # one step at a time
    trial = moving(schedule)
    whole = run_trial.run(trial)
    events = [record["step"] for record in changes(whole)[1:]]
    # within a change's step, where its checkpoint is the first with the new masks; and after it
    for number, after in enumerate((events[0], events[-1] + 1, 4)):

        def emit(report: Report, after: int = after) -> None:
            if report.steps > after:
                raise BrokenOff

        def kept(number: int = number) -> Checkpoints:
            return Checkpoints(str(tmp_path / str(number)), trial.id, 1e-9)

        with pytest.raises(BrokenOff):
            run_trial.run(trial, emit, kept())
        reports: list[Report] = []
        resumed = run_trial.run(trial, reports.append, kept())
        assert reports[0].note == f"resumed from step {after}"
        assert resumed.tags["trial.weights_sha256"] == whole.tags["trial.weights_sha256"]
        assert changes(resumed) == changes(whole)
        same = {k: v for k, v in whole.metrics.items() if k.startswith(("schedule/", "integrity/"))}
        assert {k: resumed.metrics[k] for k in same} == same


def test_it_goes_on_in_a_new_program_to_the_same_bits() -> None:
    whole = run_trial.run(moving("rewinding"))
    resumed = run_trial.run(moving("rewinding", train={**STEPS, "resume_at": 9}))
    digest = "trial.weights_sha256"
    assert resumed.tags[digest] == whole.tags[digest]


# -- what is recorded ----------------------------------------------------------------------------


def test_the_flops_of_a_training_are_the_sum_over_its_steps() -> None:
    """64-12-8-10 with masks on the first two kernels; `output` stays dense."""
    dense = 6 * (64 * 12 + 12 * 8 + 8 * 10)  # a sample: three products of two FLOPs an entry
    for schedule, strategy in (("rigl", "hard_mask"), ("gradual", "hard_mask")):
        result = run_trial.run(moving(schedule, strategy))
        start, *records = changes(result)
        expected, density = 0.0, start
        for begin, end in zip([start, *records], [*records, {"step": 20}], strict=True):
            kept = sum(weight["kept"] for weight in begin["weights"].values())
            expected += (end["step"] - begin["step"]) * 6 * (kept + 80)
            expected += dense * begin["dense_gradients"]
        assert result.metrics["flops/training"] == pytest.approx(100 * expected)
        assert result.metrics["flops/training_ratio"] == pytest.approx(expected / (20 * dense))
        assert density["weights"].keys() == {"hidden_1/kernel", "hidden_2/kernel"}
    static = run_trial.run(make(strategy="dense", train=STEPS, speed={"rounds": 0}))
    assert static.metrics["flops/training"] == 100 * 20 * dense
    assert static.metrics["flops/training_ratio"] == 1.0


@pytest.mark.parametrize("schedule", ["static", "rigl", "gradual", "iterative", "one_shot"])
def test_a_training_can_spend_the_flops_of_the_dense_one(schedule: str) -> None:
    dense = run_trial.run(make(strategy="dense", train=STEPS, speed={"rounds": 0}))
    sections = moving_sections("rigl", "hard_mask", train={**STEPS, "match_flops": "dense"})
    sections["schedule"] = SCHEDULES.get(schedule, {"name": "static"})
    trial = make(**sections)
    result = run_trial.run(trial)
    spent = result.metrics["flops/training"] / dense.metrics["flops/training"]
    assert spent == pytest.approx(1, abs=0.04)  # a whole number of steps, and of changes
    assert result.metrics["flops/training_ratio"] < 0.95
    assert result.metrics["integrity/ok"] == 1.0
    assert make(**sections).id == trial.id != moving("rigl").id


def test_the_dense_control_matches_its_own_flops() -> None:
    matched = {**STEPS, "match_flops": "dense"}
    assert make(strategy="dense", train=matched).id == make(strategy="dense", train=STEPS).id


def test_the_numbers_of_kept_entries_are_known_before_the_training() -> None:
    """`MaskSchedule.counts` is what the changes then keep."""
    for schedule in SCHEDULES.keys() - {"swap", "rewinding"}:
        trial = moving(schedule)
        start, *records = changes(run_trial.run(trial))
        pattern = {w.weight.name: w.mask for w in setup.start(trial).pattern_plan.weights}
        course = Course(20, 14)  # of 1,437 digits
        for record in (start, *records):
            expected = trial.mask_schedule.counts(pattern, record["step"], course)
            assert {name: w["kept"] for name, w in record["weights"].items()} == expected


def test_a_record_counts_what_was_cut_and_grown() -> None:
    start, *records = changes(run_trial.run(moving("rigl")))
    previous = start["weights"]
    for record in records:
        for name, weight in record["weights"].items():
            assert weight["kept"] == previous[name]["kept"] - weight["cut"] + weight["grown"]
            assert weight["cut"] == weight["grown"]
            both = weight["kept"] - weight["grown"]
            assert weight["overlap"] == both / (weight["kept"] + weight["cut"])
        assert record["dense_gradients"]
        previous = record["weights"]


# -- settings ------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"train": {**STEPS, "switch_at": 3}}, "schedule=rigl: must be static with train.switch_at"),
    ({"compare": "projection"}, "schedule=rigl: must be static with compare"),
    ({"outputs_held": [0]}, "schedule=rigl: must be static with outputs_held"),
    ({"train": {**STEPS, "early_stopping": 2}}, "must be static with train.early_stopping"),
    ({"pattern": "magnitude"}, "schedule=rigl: must be static with pattern=magnitude"),
]


@pytest.mark.parametrize(("sections", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_settings_that_do_not_go_with_a_schedule_are_refused(
    sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(Invalid) as raised:
        moving("rigl", **sections)
    assert message in str(raised.value)


def test_a_schedule_that_does_not_fit_the_training_is_refused_before_it_starts() -> None:
    with pytest.raises(Invalid) as raised:
        check_plans([moving("one_shot", train={**STEPS, "steps": 7})])
    assert str(raised.value) == "schedule.begin_step=7: must be below 7, the training steps"
    with pytest.raises(Invalid) as raised:
        check_plans([moving("swap", pattern={"name": "columns", "indices": [0]})])
    assert str(raised.value) == "schedule=swap: columns draws no other masks"


def test_static_is_no_part_of_a_trials_identity() -> None:
    plain = make()
    assert make(schedule={"name": "static"}).id == plain.id
    assert "schedule" not in plain.canonical()
    assert moving("rigl").id != moving("set").id
