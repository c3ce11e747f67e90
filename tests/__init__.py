"""The tests, file by file as the house."""
