"""The course as a book and as slides, with the outputs that the notebooks were saved with."""
