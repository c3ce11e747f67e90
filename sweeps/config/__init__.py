"""What a config says: a trial, its sections, the sweep that it is part of, and its claims.

Light to import: no TensorFlow, Ray or MLflow. It may import `results`, `components` and below.
"""
