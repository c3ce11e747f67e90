"""`masksweep bench`: what a training step takes under each strategy, beside the dense control."""
