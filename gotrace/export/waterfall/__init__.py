"""Cold starts as a waterfall: Python that makes its elements, and the files of the picture and the page around it."""
