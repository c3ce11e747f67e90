"""Settings come back from MLflow's texts as what they were."""

from __future__ import annotations

import pytest

from masksweep.sweeps.config import text_settings
from masksweep.sweeps.config.display import flatten
from masksweep.sweeps.config.trial import recorded_config
from tests.support.trials import trial


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compare": "projection", "train": {"steps": 7, "jit": False}},
        {"optimizer": {"name": "adam", "learning_rate": 1e-7}},
    ],
    ids=str,
)
def test_what_was_recorded_comes_back(changes: dict[str, object]) -> None:
    settings = flatten(recorded_config(trial(**changes)))
    texts = {key: str(value) for key, value in settings.items()}
    read = text_settings.parse_params(texts)
    plain = {k: v for k, v in settings.items() if not isinstance(v, list | tuple | dict)}
    assert {key: read[key] for key in plain} == plain
    assert {k: type(read[k]) for k in plain} == {k: type(v) for k, v in plain.items()}
    assert {key: read[key] for key in settings.keys() - plain.keys()} == {
        key: str(settings[key]) for key in settings.keys() - plain.keys()
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e5", "1e5"), ("nan", "nan"), ("None", None)],
)
def test_a_setting_that_is_not_known_here_goes_by_its_text(text: str, value: object) -> None:
    assert text_settings.parse_params({"pattern": "elsewhere", "pattern.new": text}) == {
        "pattern": "elsewhere",
        "pattern.new": value,
    }


@pytest.mark.parametrize("text", ["2024", "0.5", "None", "True"])
def test_what_is_declared_as_a_text_stays_one(text: str) -> None:
    params = {"pattern": "file", "pattern.path": text}
    assert text_settings.parse_params(params) == params
