"""Download the ratings of one interval from the MovieLens API to a CSV file.

The command is `fetch-ratings`; its one function is `movielens_fetch.download.fetch_ratings`.
"""
