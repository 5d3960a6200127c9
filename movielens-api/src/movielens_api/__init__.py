"""A mock MovieLens API: generated or downloaded ratings, served page by page."""
