"""Names that the commands and the modules with pandas share; importing them does not import pandas."""

RATING_COLUMNS = ("userId", "movieId", "rating", "timestamp")
NEEDED_RATING_COLUMNS = ("movieId", "rating")
RANKING_COLUMNS = ("movieId", "avg_rating", "num_ratings")
SUM_COLUMNS = ("movieId", "microstars", "ratings", "liked")

MEAN, BAYES, WILSON = METHODS = ("mean", "bayes", "wilson")
DEFAULT_METHOD = MEAN
DEFAULT_MIN_RATINGS = 3
