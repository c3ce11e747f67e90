"""The schema of a config: trials, their sections, the plan of a sweep, and its claims.

Light to import: no TensorFlow, Ray or MLflow. It may import `results`, `components` and below.
"""
