"""One trial from its config to its result: the program, the loop, checkpoints, scores and audit.

Knows neither Ray nor MLflow. It may import `config` and below.
"""
