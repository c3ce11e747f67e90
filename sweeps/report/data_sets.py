"""How the data sets of a sweep are told apart."""

from __future__ import annotations

from collections.abc import Sequence

from masksweep.sweeps.config.outcome import Outcome
from masksweep.sweeps.config.variants import short


def data_labels(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Returns the label of the data set of each trial, by the trial's id.

    It is the name of the data set. If there are several of one name, such as two files, their
    differing settings follow: `npz path=sha256:0a1b2c3d`.
    """
    data = {o.trial.id: o.trial.canonical()["data"] for o in outcomes}
    labels = {}
    for trial_id, settings in data.items():
        alike = [other for other in data.values() if other["name"] == settings["name"]]
        differ = (k for k, value in settings.items() if any(o.get(k) != value for o in alike))
        labels[trial_id] = " ".join(
            [settings["name"], *(f"{k}={short(settings[k])}" for k in differ)]
        )
    return labels
