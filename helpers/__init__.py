"""The shared helpers of the course: they start, measure, draw, check and clean up.

A notebook imports the room it needs (``from helpers import lesson, vm``). Importing the package
itself loads nothing heavy.
"""
