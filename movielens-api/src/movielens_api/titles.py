"""Invent movies: titles such as "The Silent Harbour (1994)", each once, and genres in MovieLens's form."""

from __future__ import annotations

import numpy as np

from movielens_api.columns import Movie
from movielens_api.random_stream import RandomStream

FORMS = (
    "The {} {}", "{} {}", "The Last {} {}", "Return to the {} {}", "My {} {}",
    "Beyond the {} {}", "Night of the {} {}", "One {} {}", "Under the {} {}", "The {} {} Affair",
)  # fmt: skip

ADJECTIVES = """
    Silent Crimson Distant Broken Golden Hollow Midnight Wandering Forgotten Burning Frozen Hidden Restless Velvet
    Bitter Quiet Scarlet Lonely Electric Winter Savage Gentle Drowning Painted Secret Paper Northern Stolen Amber
    Wild Sleeping Faithful Invisible Tender Borrowed Iron Emerald Reckless Pale Rusty Sacred Shattered Singing
    Southern Stubborn Sunken Thirsty Twisted Unlikely Vanishing Wounded Clever Copper Crooked Cruel Dancing Dusty
    Endless Fragile Glass Honest Hungry Idle Jealous Laughing Little Lucky Marble Misty Naked Obedient Perfect
    Proud Rebel Ruined Silver Stormy Sudden Timid Weary
""".split()  # noqa: SIM905 (a list literal would be a page long)

NOUNS = """
    Harbour River Station Garden Empire Letter Mirror Orchard Stranger Lighthouse Shadow Kingdom Summer Voyage
    Detective Daughter Highway Island Candle Piano Soldier Winter Bridge Carnival Castle Circus City Clock Compass
    Cottage Desert Doctor Dream Engine Falcon Farmer Ferry Fiddler Fire Forest Fortune Ghost Guest Heart Horizon
    Horse Hotel House Hunter Journey Judge Lake Lantern Lesson Library Locket Lover Machine Market Meadow Melody
    Messenger Miracle Moon Mountain Neighbour Notebook Ocean Painter Palace Parade Passenger Pilot Pirate Poet
    Postman Promise Quarry Queen Rain Rebellion Rival Road Robot Sailor Saint School Sea Season Signal Sister
    Sky Snow Song Spy Stairway Star Storm Sunday Tailor Teacher Theatre Thief Tiger Tower Town Train Treasure Tunnel
    Valley Village Violin Waltz Wedding Whale Window Witness Wolf Writer
""".split()  # noqa: SIM905 (a list literal would be a page long)

# Ordered as the catalogue's frequencies fall, roughly: the draw is long-tailed.
GENRES = (
    "Drama", "Comedy", "Thriller", "Romance", "Action", "Horror", "Documentary", "Crime", "Adventure", "Sci-Fi",
    "Mystery", "Children", "Animation", "Fantasy", "War", "Western", "Musical", "Film-Noir",
)  # fmt: skip
NO_GENRES = "(no genres listed)"

LAST_YEAR = 2018  # the ratings start in 2019
YEARS = 80


def invent_movies(random: RandomStream, count: int) -> list[Movie]:
    """Return `count` movies with ids 1 to `count`; no two have the same title, with or without the year."""
    words = len(ADJECTIVES) * len(NOUNS)
    names = random.permutation(len(FORMS) * words)[:count].tolist()
    years = (LAST_YEAR - np.floor(YEARS * np.square(random.uniform(count)))).astype(int).tolist()
    shares = np.cumsum(1.0 / (np.arange(len(GENRES)) + 2.0))
    draws = random.uniform(3 * count).reshape(count, 3) * shares[-1]
    genres = np.searchsorted(shares[:-1], draws, side="right").tolist()
    genre_counts = random.uniform(count).tolist()
    return [
        (movie_id, f"{_name(name, words)} ({year})", _genres(drawn, share))
        for movie_id, (name, year, drawn, share) in enumerate(
            zip(names, years, genres, genre_counts, strict=True), start=1
        )
    ]


def _name(number: int, words: int) -> str:
    form, word = divmod(number, words)
    adjective, noun = divmod(word, len(NOUNS))
    return FORMS[form].format(ADJECTIVES[adjective], NOUNS[noun])


def _genres(drawn: list[int], share: float) -> str:
    if share < 0.01:
        return NO_GENRES
    count = 1 if share < 0.35 else 2 if share < 0.75 else 3
    return "|".join(sorted({GENRES[genre] for genre in drawn[:count]}))
