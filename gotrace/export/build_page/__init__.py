"""Builds as a timeline: Python that makes its elements, and the files of the picture around it."""
