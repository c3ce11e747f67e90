"""Packs: with the same width, neither a trial's lane nor the other trials change its bits."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masksweep.strategies import STRATEGIES, Invalid
from masksweep.strategies.core.weights import values
from masksweep.sweeps.components.optimizers import OPTIMIZERS
from masksweep.sweeps.composing.command_line import compose_plan
from masksweep.sweeps.config.plan import group_into_packs
from masksweep.sweeps.config.trial import Trial, parse, recorded_config
from masksweep.sweeps.results import Diverged, MustRunAlone, Report, TrialResult
from masksweep.sweeps.training import (
    integrity,
    loop,
    pack,
    program_cache,
    setup,
    state,
    step_loop,
    vectorized,
)
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.run_trial import build_start, run
from masksweep.sweeps.training.state import PackMember
from tests.support.selection import by_default
from tests.support.sweep_process import local_store, ran
from tests.support.trials import trial as make

WIDTH = 4
STEPS = {"epochs": 3, "batch_size": 100}
MODEL = {"name": "mlp", "hidden": [8]}
"""XLA compiles for longer the more weights there are, and two kernels can be mixed up already."""
COLUMNS: dict[str, Any] = {
    "pattern": {"name": "columns", "sparsity": 0.3},
    "held": "init",
    "targets": ["output/*"],
}
ROUNDING = 1e-5
"""Largest allowed absolute difference in weights, losses and scores between a trial in a pack and
the same trial alone, after a few dozen small steps. Only the order of sums in products differs."""


def given(seed: int = 0, width: int = WIDTH, **sections: Any) -> Trial:
    defaults = {
        "model": MODEL,
        "train": STEPS,
        "speed": {"rounds": 0},
        "launch": {"pack": width},
        "seed": seed,
    }
    return make(**{**defaults, **sections})


def run_alone(seed: int = 0, **sections: Any) -> TrialResult:
    """Runs a trial alone and without XLA, which would compile for longer than the trial trains."""
    train = {**STEPS, "jit": False}
    return run(given(**{"seed": seed, "width": 1, "train": train, **sections}))


def sections_for(strategy: str) -> dict[str, Any]:
    if strategy == "sparse_tensor":
        return {"strategy": {"name": strategy, "format": "dense"}}
    sections = COLUMNS if strategy in ("var_list", "loss_mask") else {}
    return {"strategy": strategy, **({"pattern": "rows"} if strategy == "row_lookup" else sections)}


class Kept:
    """Runs packs, and records the reports of their trials."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = str(folder) if folder else f"memory://{uuid.uuid4().hex}"
        self.reports: dict[str, list[Report]] = {}

    def run(self, *trials: Trial, every_s: float = 60) -> list[Any]:
        members = [
            PackMember(
                trial,
                self.reports.setdefault(trial.id, []).append,
                Checkpoints(self.folder, trial.id, every_s),
            )
            for trial in trials
        ]
        return pack.run(members)

    def notes(self, trial: Trial) -> list[str]:
        return [r.note for r in self.reports[trial.id] if r.note]

    def curve(self, trial: Trial) -> list[tuple[int, dict[str, float]]]:
        return [(r.epoch, dict(r.metrics)) for r in self.reports[trial.id] if r.metrics]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def bits(result: Any) -> dict[str, Any]:
    """All results of a trial that must not change: not its times and memory."""
    assert isinstance(result, TrialResult), result
    metrics = {k: v for k, v in result.metrics.items() if not k.startswith(("speed/", "memory/"))}
    arrays = {k: result.artifacts[k] for k in result.artifacts if k.endswith(".npz")}
    return {**metrics, **result.tags, "epochs": result.epochs, **arrays}


def weights(result: Any, folder: Path) -> dict[str, Any]:
    import keras

    path = folder / "model.keras"
    path.write_bytes(result.artifacts["model.keras"])
    return values(keras.models.load_model(path))


def assert_close(result: Any, alone: TrialResult, folder: Path, rounding: float = ROUNDING) -> None:
    assert isinstance(result, TrialResult), result
    assert result.metrics.keys() == alone.metrics.keys()
    for name in ("train/loss", "validation/loss", "test/loss", "test/accuracy"):
        assert result.metrics[name] == pytest.approx(alone.metrics[name], abs=rounding), name
    for name in ("integrity/ok", "integrity/peak_violations", "sparsity/achieved"):
        assert result.metrics.get(name) == alone.metrics.get(name)
    packed, single = weights(result, folder), weights(alone, folder)
    for name in packed:
        np.testing.assert_allclose(packed[name], single[name], rtol=0, atol=rounding)


PACKED = [*(name for name, kind in STRATEGIES.items() if kind().xla), "sparse_tensor"]


@pytest.mark.parametrize("strategy", by_default(["sparse_tensor"], PACKED))
def test_neither_lane_nor_neighbours_nor_padding_change_a_bit(
    strategy: str, kept: Kept, tmp_path: Path
) -> None:
    a, b, c, d, e = (given(seed, **sections_for(strategy)) for seed in range(5))
    first_results = kept.run(a, b, c, d)
    curve = kept.curve(c)
    assert not kept.notes(a)
    expected = bits(first_results[2])
    for others, lane in (((c, e), 0), ((e, d, b, c), 3), ((c,), 0)):
        runner = Kept()
        results = runner.run(*others)
        assert bits(results[lane]) == expected
        assert runner.curve(c) == curve
    assert len({bits(f)["trial.weights_sha256"] for f in first_results}) == 4
    assert_close(first_results[2], run_alone(2, **sections_for(strategy)), tmp_path)


OPTIMIZER_CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in OPTIMIZERS},
    # with the default epsilon, a pixel that is always 0 gives 0 / 0, in a single trial too
    "adafactor": {"name": "adafactor", "epsilon_1": 1e-12},
    "momentum": {"name": "sgd", "momentum": 0.9, "nesterov": True},
    "decay": {"name": "adam", "weight_decay": 0.01},
    "clipnorm": {"name": "adam", "clipnorm": 0.01},
    "global_clipnorm": {"name": "adam", "global_clipnorm": 0.01},
    "nadam, global_clipnorm": {"name": "nadam", "global_clipnorm": 0.01},
    "ema": {"name": "adam", "use_ema": True, "ema_momentum": 0.9},
}


@pytest.mark.parametrize("case", by_default(["nadam, global_clipnorm"], OPTIMIZER_CASES))
def test_every_optimizer_sees_its_own_lane_only(case: str, kept: Kept, tmp_path: Path) -> None:
    """Includes optimizers that read whole weights: norms, factored moments, orthogonal updates."""
    sections = {"optimizer": OPTIMIZER_CASES[case], "strategy": "hard_mask"}
    one, other = (given(seed, **sections) for seed in (0, 1))
    results = kept.run(one, other)
    assert not kept.notes(one)
    assert bits(Kept().run(other)[0]) == bits(results[1])
    # orthogonal updates amplify rounding differences
    rounding = 1e-3 if case == "muon" else ROUNDING
    assert_close(results[1], run_alone(1, **sections), tmp_path, rounding)


def test_rates_masks_and_held_values_are_each_trials_own(kept: Kept, tmp_path: Path) -> None:
    constant = {"name": "constant", "value": 0.5}
    rate = {"name": "adam", "learning_rate": 0.002}
    cases: list[dict[str, Any]] = [
        {},
        {"optimizer": rate},
        {"held": constant, "pattern": {"name": "random", "sparsity": 0.9}},
        {"pattern": {"name": "n_m"}, "held": "init", "seed": 3},
    ]
    results = kept.run(*(given(**{"seed": 0, **sections}) for sections in cases))
    for result, sections in zip(results, cases, strict=True):
        alone = run_alone(**sections)
        assert result.artifacts["masks.npz"] == alone.artifacts["masks.npz"]
        assert result.metrics["integrity/ok"] == 1
        assert_close(result, alone, tmp_path)
    assert len({bits(f)["trial.weights_sha256"] for f in results}) == 4


def test_kinds_of_held_values_share_a_pack_and_its_program() -> None:
    kinds = [{"name": "zero"}, {"name": "constant", "value": 0.5}, {"name": "init"}]
    for width, programs in ((8, 1), (1, 2)):
        starts = [setup.start(given(held=kind, width=width)) for kind in kinds]
        assert len({setup.shape(start) for start in starts}) == programs


@pytest.mark.slow  # compiles two packs
def test_masks_of_other_sizes_make_packs_of_their_own(kept: Kept) -> None:
    sparse, denser = (
        given(strategy="sparse_values", pattern={"name": "random", "sparsity": s})
        for s in (0.9, 0.5)
    )
    results = kept.run(sparse, denser)
    assert [f.metrics["integrity/ok"] for f in results] == [1, 1]
    assert bits(Kept().run(denser)[0]) == bits(results[1])


def test_the_audit_counts_lane_by_lane(kept: Kept) -> None:
    leaking = {"strategy": "init_only", "optimizer": {"name": "sgd", "learning_rate": 0.1}}
    patterns = [{"name": "random", "sparsity": s} for s in (0.9, 0.3)]
    results = kept.run(*(given(pattern=p, **leaking) for p in patterns))
    for result, pattern in zip(results, patterns, strict=True):
        alone = run_alone(pattern=pattern, **leaking)
        for name in ("integrity/peak_violations", "integrity/first_violation_step"):
            assert result.metrics[name] == alone.metrics[name]
        assert result.tags["integrity.through"] == alone.tags["integrity.through"]
        drift = alone.metrics["integrity/peak_drift"]
        assert result.metrics["integrity/peak_drift"] == pytest.approx(drift, rel=1e-4)
    peaks = [f.metrics["integrity/peak_violations"] for f in results]
    assert peaks[0] > 2 * peaks[1] > 0


def test_a_pack_compiles_nothing_a_second_time(kept: Kept) -> None:
    with program_cache.without_programs():
        fresh = Kept().run(given(0))[0]
        Kept().run(given(1), given(2, optimizer={"name": "adam", "learning_rate": 0.5}))
        result = Kept().run(given(0))[0]
        (packed,) = program_cache.programs()
        timed = kept.run(*(given(seed, speed={"rounds": 6}) for seed in range(3)))
    assert bits(result) == bits(fresh)
    assert (result.metrics["speed/compile_s"], timed[0].metrics["speed/compile_s"]) == (0, 0)
    assert fresh.metrics["speed/compile_s"] > 0
    assert isinstance(packed, vectorized.PackedProgram)
    assert packed.loop.function.experimental_get_tracing_count() == 1
    check_times(timed)


def check_times(results: list[Any]) -> None:
    """Steps are timed beside as many dense trials."""
    assert len({f.metrics["speed/ratio_to_dense"] for f in results}) == 1
    metrics = results[0].metrics
    limits = metrics["speed/ratio_low"], metrics["speed/ratio_high"]
    assert limits[0] <= metrics["speed/ratio_to_dense"] <= limits[1]
    assert results[0].tags["speed.noisy"] == str(metrics["speed/dense_to_dense"] > 1.05).lower()
    assert 0 < metrics["speed/ratio_to_dense"] < 100
    assert metrics["speed/samples_per_s"] == pytest.approx(100_000 / metrics["speed/step_ms"])
    alone = run_alone().metrics
    assert metrics["memory/parameters_bytes"] == alone["memory/parameters_bytes"]


# -- errors of one trial -----------------------------------------------------------------------


def test_one_that_diverges_ends_alone_and_as_it_does_alone(kept: Kept) -> None:
    wild = {"name": "sgd", "learning_rate": 1e30}
    calm = {"name": "sgd", "learning_rate": 0.1}
    a, diverging, b = given(0, optimizer=calm), given(1, optimizer=wild), given(2, optimizer=calm)
    results = kept.run(a, diverging, b)
    assert isinstance(results[1], Diverged)
    reports: list[Report] = []
    with pytest.raises(Diverged) as alone:
        run(given(1, 1, optimizer=wild, train={**STEPS, "jit": False}), reports.append)
    assert str(results[1]) == str(alone.value)
    # compared as text, because NaN does not equal NaN
    assert repr(kept.reports[diverging.id][-1]) == repr(reports[-1])
    assert [bits(f) for f in Kept().run(a, b)] == [bits(results[0]), bits(results[2])]
    lone_results = Kept().run(diverging)
    assert isinstance(lone_results[0], Diverged)


def test_one_that_is_refused_or_cannot_be_made_takes_no_other_with_it(
    kept: Kept, tmp_path: Path
) -> None:
    good = given(strategy="var_list", **COLUMNS)
    refused = given(1, strategy="var_list", targets=["output/*"], held="init")
    masks = tmp_path / "masks.npz"
    np.savez(masks, **{"output/kernel": np.ones((8, 10), bool)})
    missing_mask = given(2, strategy="var_list", pattern={"name": "file", "path": str(masks)})
    _ = missing_mask.id
    masks.unlink()
    results = kept.run(refused, good, missing_mask)
    assert (results[0].status, results[1].status) == ("skipped", "ok")
    assert "whole outputs" in results[0].reason
    assert isinstance(results[2], Invalid | OSError)
    assert bits(results[1]) == bits(Kept().run(good)[0])


def test_one_whose_audit_breaks_ends_alone(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    original = integrity.audit_trained

    def failing(start: setup.TrialStart, *rest: Any) -> Any:
        if start.trial.seed == 1:
            raise OSError("disk full")
        return original(start, *rest)

    monkeypatch.setattr(integrity, "audit_trained", failing)
    results = kept.run(given(0), given(1), given(2))
    assert str(results[1]) == "disk full"
    assert [f.status for f in (results[0], results[2])] == ["ok", "ok"]


def test_what_was_found_is_not_lost_with_the_timing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> Any:
        raise MemoryError("no room for the control")

    monkeypatch.setattr(pack.costs, "step_time_of_pack", failing)
    one, other = (given(seed, speed={"rounds": 3}) for seed in (0, 1))
    results = kept.run(one, other)
    assert [f.status for f in results] == ["ok", "ok"]
    assert "speed/step_ms" not in results[0].metrics
    assert kept.notes(one) == ["the pack was not timed: no room for the control"]
    assert kept.reports[one.id][-1].epoch == results[0].epochs == 3


# -- trials that can only run alone ----------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"model": "cnn1d", "train": {**STEPS, "jit": True}}, "Conv2DBackpropFilter cannot run"),
        ({"model": {"name": "gru", "units": 3}}, "its step does not compile for lanes: "),
    ],
    ids=["conv", "gru"],
)
@pytest.mark.slow  # compiles the pack in vain, and then both trials
def test_a_model_whose_step_does_not_pack_runs_alone_and_says_why(
    sections: dict[str, Any], why: str, kept: Kept
) -> None:
    one, other = (given(seed, **sections) for seed in (0, 1))
    assert one.width == WIDTH
    for _ in range(2):  # the second time, the process knows the reason already
        with pytest.raises(MustRunAlone, match=re.escape(why)):
            kept.run(one, other)
    (note,) = kept.notes(one)
    assert note.startswith(f"trials of this shape run alone: {why}")
    for trial in (one, other):
        (result,) = kept.run(trial)
        assert result.tags["trial.alone"].startswith(why)
        alone = bits(run(given(trial.seed, 1, **sections)))
        assert alone.items() <= bits(result).items()


@pytest.mark.parametrize(
    "model", [{"dropout": 0.2}, pytest.param({"batch_norm": True}, marks=pytest.mark.slow)], ids=str
)
def test_models_with_a_state_of_their_own_pack(
    model: dict[str, Any], kept: Kept, tmp_path: Path
) -> None:
    sections = {"model": {**MODEL, **model}}
    a, b = (given(seed, **sections) for seed in (0, 1))
    results = kept.run(a, b)
    assert not kept.notes(a)
    assert bits(Kept().run(b)[0]) == bits(results[1])
    assert_close(results[1], run(given(1, 1, **sections)), tmp_path, 1e-3)  # XLA: the same dropout


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"train": {**STEPS, "jit": False}}, "train.jit"),
        ({"train": {**STEPS, "switch_at": 3}}, "train.switch_at"),
        ({"train": {**STEPS, "resume_at": 3}}, "train.resume_at"),
        ({"compare": "projection"}, "compare"),
        (
            {"optimizer": {"name": "adam", "use_ema": True, "ema_overwrite_frequency": 5}},
            "ema_overwrite_frequency",
        ),
        ({"strategy": "sparse_tensor"}, "train.jit"),
    ],
)
def test_some_trials_have_no_width(sections: dict[str, Any], why: str) -> None:
    trial = given(**sections)
    assert why in trial.run_alone_reason
    assert trial.width == 1
    assert trial.id == given(width=1, **sections).id


# -- chunks and checkpoints ------------------------------------------------------------------


class BrokenOff(BaseException):
    pass


def break_off(kept: Kept, trials: Sequence[Trial], after: int) -> None:
    def emit(report: Report) -> None:
        if report.steps > after:
            raise BrokenOff

    members = [PackMember(t, emit, Checkpoints(kept.folder, t.id, 1e-9)) for t in trials]
    with pytest.raises(BrokenOff):
        pack.run(members)


@pytest.mark.parametrize("after", [5, pytest.param(14, marks=pytest.mark.slow)])
def test_a_pack_goes_on_from_its_checkpoints_to_the_same_bits(
    after: int, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    trials = [given(seed) for seed in range(3)]
    uninterrupted = Kept()
    expected = [bits(f) for f in uninterrupted.run(*trials)]
    break_off(kept, trials, after)
    results = kept.run(*trials)
    assert [bits(f) for f in results] == expected
    for trial in trials:
        assert kept.notes(trial) == [f"resumed from step {after}"]
        assert kept.curve(trial) == uninterrupted.curve(trial)


def test_trials_that_are_at_different_steps_go_on_each_from_its_own(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One trial was killed before it saved like the others; another trial is new."""
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    trials = [given(seed) for seed in range(4)]
    expected = [bits(f) for f in Kept().run(*trials)]
    break_off(kept, trials[:3], 9)
    newest = sorted((Path(kept.folder) / trials[1].id).iterdir())[-1]
    newest.unlink()
    assert [bits(f) for f in kept.run(*trials)] == expected
    notes = [kept.notes(t) for t in trials]
    assert notes == [[f"resumed from step {n}"] if n else [] for n in (9, 8, 9, 0)]


def test_one_that_diverged_keeps_no_other_from_going_on(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    calm, wild = {"name": "sgd"}, {"name": "sgd", "learning_rate": 1e30}
    trials = [given(seed, optimizer=o) for seed, o in ((0, calm), (1, wild), (2, calm))]
    expected = Kept().run(*trials)
    break_off(kept, trials, 9)
    results = kept.run(*trials)
    assert [bits(results[n]) for n in (0, 2)] == [bits(expected[n]) for n in (0, 2)]
    assert str(results[1]) == str(expected[1])
    assert kept.notes(trials[0]) == ["resumed from step 9"]


def test_what_ran_alone_is_not_gone_on_with_in_a_pack(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    trial = given()

    def emit(report: Report) -> None:
        if report.steps > 5:
            raise BrokenOff

    with pytest.raises(BrokenOff):
        run(trial, emit, Checkpoints(kept.folder, trial.id, 1e-9))
    assert bits(kept.run(trial)[0]) == bits(Kept().run(trial)[0])
    assert "of another start" in kept.notes(trial)[0]


def test_a_pack_that_is_too_large_is_run_apart(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(step_loop.StepLoop, "_call", full)
    with program_cache.without_programs(), pytest.raises(MustRunAlone, match="no room"):
        kept.run(given(0), given(1))
    assert kept.notes(given(0)) == ["the trials of this pack run alone: no room"]
    (alone,) = kept.run(given(0))
    assert isinstance(alone, MemoryError)


def test_chunks_change_no_bit(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    trials = [given(seed) for seed in range(2)]
    expected = [bits(f) for f in kept.run(*trials)]
    monkeypatch.setattr(loop, "CHUNK_SECONDS", 0.0)
    assert [bits(f) for f in Kept().run(*trials)] == expected
    assert state.CHUNK_SECONDS > 0


# -- the identity of a trial -----------------------------------------------------------------


def test_the_width_is_part_of_a_trials_identity_and_of_what_is_recorded() -> None:
    ids = {given(width=w).id for w in (1, 2, 4)}
    assert len(ids) == 3
    assert given(width=1).id == make(model=MODEL, train=STEPS, speed={"rounds": 0}).id
    assert parse(recorded_config(given(width=4))).id == given(width=4).id
    assert "launch" not in recorded_config(given(width=1))


@pytest.mark.slow
def test_a_sweep_packs_its_trials_and_finds_them_again(tmp_path: Path) -> None:
    sweep = (
        "strategy=projection", "pattern=random", "data=digits", "model.hidden=[12]",
        "train.epochs=2", "optimizer=sgd", "optimizer.learning_rate=0.1,1e30", "seed=0,1,2",
        "launch.pack=4", "speed.rounds=0", "sweep.name=packed",
    )  # fmt: skip
    first_run = ran(tmp_path, *sweep)
    assert first_run.code == 1
    store = local_store(tmp_path, "packed")
    # the trials with the very large learning rate diverge, without an effect on the others
    assert store.by_status() == {"FINISHED": 3, "FAILED": 3}
    assert len(set(store.digests().values())) == 3
    for child in store.children:
        diverged = child.info.status == "FAILED"
        assert child.data.tags.get("trial.reason", "").startswith("diverged: ") == diverged
        assert child.data.params["launch.pack"] == "4"
        if not diverged:
            assert store.curve(child, "train/loss") == [1, 2]
    second_run = ran(tmp_path, *sweep[:5], sweep[5], "optimizer.learning_rate=0.1", *sweep[7:])
    assert "3 trials: 3 done" in second_run.stdout + second_run.stderr


@pytest.mark.usefixtures("hydra_restore_singletons")
def test_trials_that_differ_in_values_alone_are_packed_together() -> None:
    packed = group_into_packs(
        compose_plan(
            [
                "strategy=projection,hard_mask,dense,sparse_tensor",
                "pattern.sparsity=0.5,0.9",
                "optimizer.learning_rate=0.1,0.2",
                "seed=0,1",
                "launch.pack=3",
            ],
        )
    )
    sizes = [(p[0].trial.strategy.name, len(p)) for p in packed]
    assert sorted(sizes) == sorted(
        [("projection", 3), ("projection", 3), ("projection", 2)]
        + [("hard_mask", 3), ("hard_mask", 3), ("hard_mask", 2)]
        + [("dense", 3), ("dense", 1)]
        + [("sparse_tensor", 1)] * 8
    )
    for members in packed:
        assert len({p.trial.strategy for p in members}) == 1
    assert build_start(packed[0][0].trial, None).trial is packed[0][0].trial
