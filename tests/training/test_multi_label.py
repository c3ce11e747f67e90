"""Samples with several labels: a sigmoid, the binary crossentropy and accuracy for each of them."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from masksweep.strategies import Invalid
from masksweep.sweeps.results import TrialResult
from masksweep.sweeps.training import pack
from masksweep.sweeps.training.checkpoint import Checkpoints
from masksweep.sweeps.training.state import PackMember
from tests.support.selection import by_default
from tests.support.trials import trial as make


@pytest.mark.parametrize("pack_width", by_default([2], [1, 2]))
def test_several_labels_of_a_sample(pack_width: int, tmp_path: Path) -> None:
    """Loss and score are Keras' binary crossentropy and accuracy of the sigmoids.

    Each training sample is there once more with the opposite labels and a weight of zero.
    """
    x = np.random.default_rng(0).normal(size=(90, 8)).astype(np.float32)
    y = (x[:, :3] > 0).astype(np.uint8)
    path = str(tmp_path / "labels.npz")
    training = {
        "x_train": np.concatenate([x[:60], x[:60]]),
        "y_train": np.concatenate([y[:60], 1 - y[:60]]),
        "sample_weight_train": np.repeat([1, 0], 60),
    }
    np.savez(path, **training, x_test=x[60:], y_test=y[60:])
    trial = make(
        data={"name": "npz", "path": path, "task": "multi_label"},
        train={"epochs": 60, "batch_size": 9, "metrics": ["auc", "binary_crossentropy"]},
        launch={"pack": pack_width},
        speed={"rounds": 0},
    )
    members = [PackMember(trial, lambda _: None, Checkpoints(str(tmp_path), trial.id, 1e9))]
    (result,) = pack.run(members)
    assert isinstance(result, TrialResult), result
    assert "trial.alone" not in result.tags
    (tmp_path / "model.keras").write_bytes(result.artifacts["model.keras"])
    logits = keras.saving.load_model(tmp_path / "model.keras")(x[60:])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)(y[60:], logits)
    score = keras.metrics.binary_accuracy(y[60:], keras.ops.sigmoid(logits))
    assert result.metrics["test/loss"] == pytest.approx(float(loss), abs=1e-6)
    assert result.metrics["test/accuracy"] == pytest.approx(float(np.mean(score)), abs=1e-6)
    assert result.metrics["test/accuracy"] > 0.8
    auc = keras.metrics.AUC()
    auc.update_state(y[60:], keras.ops.sigmoid(logits))
    assert result.metrics["test/auc"] == pytest.approx(float(auc.result()), abs=1e-6)
    assert result.metrics["test/binary_crossentropy"] == pytest.approx(float(loss), abs=1e-6)
    assert trial.score_metric.key == "test/accuracy"
    with pytest.raises(Invalid, match="must be one of test/loss, test/accuracy, "):
        make(data=trial.data, objective="test/mse")
