"""A scope for a forward pass in which masked weights have the values that their strategies give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from masksweep.strategies.core import keras_internals
from masksweep.strategies.core.held_weight import HeldWeight
from masksweep.strategies.errors import Invalid


class Substitution(keras.StatelessScope):  # type: ignore[misc]
    """Replaces the masked weights in a forward pass. All other variables are read and written.

    So `keras.Model.train_step` updates statistics and seeds as it does without masks, unlike in a
    `keras.StatelessScope`, which drops these updates.
    """

    def __init__(self, weights: Sequence[HeldWeight], losses: Sequence[Any] = ()) -> None:
        """Makes the scope.

        Args:
            weights: The masked weights.
            losses: The losses that layers added in an earlier scope, so that `layer.losses` has
                them in this one too.
        """
        super().__init__(collect_losses=True)
        self.losses = list(losses)
        read = [w for w in weights if not w.is_rarely_read]
        self.state_mapping = {id(w.variable): w.substitute() for w in read}
        self._not_stored = {id(w.variable): w for w in weights if w.is_rarely_read}
        self._names = {id(w.variable): w.weight.name for w in weights}
        self._written: list[str] = []

    def get_current_value(self, variable: Any) -> Any:
        substitute = self.state_mapping.get(id(variable))
        if substitute is not None:
            return substitute
        if id(variable) in self._not_stored:  # made only where a layer reads it, as with LoRA
            return self._not_stored[id(variable)].substitute()
        outer = self.original_scope
        value = None if outer is None else outer.get_current_value(variable)
        return keras_internals.stored_value(variable) if value is None else value

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, value = update
        if id(variable) in self._names:
            self._written.append(self._names[id(variable)])
        elif self.original_scope is not None:
            self.original_scope.add_update(update)
        else:
            keras_internals.assign_directly(variable, value)

    def require_unwritten(self) -> None:
        """Checks that no layer wrote to a masked weight, as SpectralNormalization does.

        `add_update` does not check this, because Keras replaces an exception that is raised inside
        a layer by another one.

        Raises:
            Invalid: A layer wrote to a masked weight.
        """
        for name in self._written:
            allowed = "its layer writes to it in the forward pass; do not mask it"
            raise Invalid("model", name, allowed)


class DenseSubstitution(Substitution):
    """Replaces the masked weights by given dense values, and drops what layers write.

    For a forward pass beside the training, such as that of the gradients by the dense weights.
    """

    def __init__(self, weights: Sequence[HeldWeight], values: Sequence[Any]) -> None:
        """Makes the scope.

        Args:
            weights: The masked weights.
            values: Their dense values, as tensors.
        """
        super().__init__(())
        pairs = zip(weights, values, strict=True)
        self.state_mapping = {id(held.variable): value for held, value in pairs}

    def add_update(self, update: tuple[Any, Any]) -> None:
        variable, value = update
        self.state_mapping[id(variable)] = value  # a layer may read it again in this pass
