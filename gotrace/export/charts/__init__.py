"""Pages of charts: Python that makes their figures, the script and style that draw them, and the library they use."""
