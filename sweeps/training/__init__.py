"""Runs one trial, from its config to its result: program, loop, checkpoints, scores and audit.

The package uses neither Ray nor MLflow. Its modules may import `config` and the layers below it.
"""
