"""The page about a process's memory: Python that makes its figures, the files of the page, and the library that draws."""
