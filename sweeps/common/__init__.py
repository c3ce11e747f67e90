"""What every other package may use: text, files, locks, seeds, signals, safe reading.

Nothing in it knows what a trial is. It may import `strategies` only.
"""
