"""Flame graphs: Python that makes their elements, and the files of the picture and the page around it."""
