"""What a sweep consists of, before anything of it runs."""

from __future__ import annotations

import pytest

from sweeps.overrides import planned
from sweeps.plan import Planned, by_program, public, show
from tests.trials import trial

pytestmark = pytest.mark.usefixtures("hydra_restore_singletons")


def test_a_trial_knows_the_parts_that_it_belongs_to() -> None:
    parts = "++sweep.parts={a:{strategy:[dense,projection]},b:{strategy:dense,held:init}}"
    assert [(p.trial.strategy.name, sorted(p.parts)) for p in planned("plan", [parts])] == [
        ("dense", ["a", "b"]),  # which holds nothing, so it is one trial
        ("projection", ["a"]),
    ]


def test_trials_of_one_program_run_one_after_another() -> None:
    def one(strategy: str, seed: int, rate: float = 0.1, steps: int = 5) -> Planned:
        made = trial(
            strategy=strategy,
            seed=seed,
            optimizer={"name": "sgd", "learning_rate": rate},
            train={"steps": steps, "batch_size": 100},
        )
        return Planned(made, [])

    a, b, c, d = (
        one("projection", 0),
        one("hard_mask", 0),
        one("projection", 1, rate=0.2),
        one("hard_mask", 0, steps=9),
    )
    assert by_program([a, b, c, d]) == [a, c, b, d]
    other = Planned(trial(strategy="projection", model={"name": "mlp", "hidden": [3]}), [])
    assert by_program([a, other, c]) == [a, c, other]


def test_where_trials_run_is_not_told_but_how_many_side_by_side_is() -> None:
    told = ["launch.pack=4", "++launch.pack=8", "seed=1"]
    hidden = ["launch.address=auto", "launch.packs=4", "tracking.uri=x", "checkpoint.path=y"]
    assert public([*told, *hidden]) == told


def test_a_plan_says_what_runs_side_by_side(capsys: pytest.CaptureFixture[str]) -> None:
    base = ["strategy=gradient_mask,sparse_tensor", "seed=0,1,2"]
    show(planned("plan", [*base, "launch.pack=2"]), as_json=False)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "side by side: 2 packs of at most 2, 3 trials alone"
    show(planned("plan", base), as_json=False)
    assert capsys.readouterr().out.splitlines()[-1] == "6 trials: 6 to run"
