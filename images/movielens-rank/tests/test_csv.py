"""Files in, files out: what is read, what is refused, what is written."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from movielens_rank import BadRatings, rank_file, rank_movies, ratings_csv, read_ratings, write_rankings

HEADER = "userId,movieId,rating,timestamp\n"


@pytest.fixture
def ratings_file(tmp_path):
    def write(text):
        path = tmp_path / "ratings.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_read_rank_and_write_give_what_rank_file_gives(ratings_file, tmp_path):
    path = ratings_file(HEADER + "".join(f"{i},{i % 7},{i % 10 / 2 + 0.5},100\n" for i in range(200)))
    write_rankings(rank_movies(read_ratings(path), 2, "bayes", 5), tmp_path / "steps.csv")
    assert rank_file(path, tmp_path / "whole.csv", 2, "bayes", 5) == (5, 200)
    assert (tmp_path / "steps.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_a_ranking_is_written_with_floats_that_read_back_the_same(ratings_file, tmp_path):
    path = ratings_file("movieId,rating\n1,4\n1,4\n1,5\n2,3.5\n2,3\n2,4\n")
    assert rank_file(path, tmp_path / "out.csv") == (2, 6)
    assert (tmp_path / "out.csv").read_bytes() == (b"movieId,avg_rating,num_ratings\n1,4.333333333333333,3\n2,3.5,3\n")
    assert 4.333333333333333 == 13 / 3


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 99, 100, 101])
def test_chunk_boundaries_do_not_show_in_the_ranking(ratings_file, tmp_path, monkeypatch, chunk_rows):
    path = ratings_file(HEADER + "".join(f"{i},{i * i % 13},{i % 9 / 2 + 0.5},100\n" for i in range(100)))
    rank_file(path, tmp_path / "at_once.csv", 1)
    monkeypatch.setattr(ratings_csv, "CHUNK_ROWS", chunk_rows)
    rank_file(path, tmp_path / "in_chunks.csv", 1)
    assert (tmp_path / "at_once.csv").read_bytes() == (tmp_path / "in_chunks.csv").read_bytes()
    pd.testing.assert_frame_equal(rank_movies(read_ratings(path), 1), pd.read_csv(tmp_path / "at_once.csv"))


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + HEADER.encode() + b"1,2,3.5,100\n",
        HEADER.replace("\n", "\r\n") + "1,2,3.5,100\r\n",
        HEADER + "1,2,3.5,100",
        HEADER + "\n1,2,3.5,100\n\n",
        HEADER + '"1","2","3.5","100"\n',
        "rating,movieId\n3.5,2\n",
        "movieId,title,rating\n2,Été,3.5\n",
        "movieId,rating,comment\n2,3.5,\n",
    ],
    ids=["bom", "crlf", "no last line end", "blank lines", "quoted", "other order", "text column", "empty text"],
)
def test_other_spellings_of_the_same_ratings_are_read(ratings_file, text):
    assert read_ratings(ratings_file(text)).to_dict("list") == {"movieId": [2], "rating": [3.5]}


@pytest.mark.parametrize("header", [HEADER, "movieId,rating", "movieId,rating\n\n", "movieId,rating\r\n"])
def test_a_header_alone_gives_no_rows(ratings_file, tmp_path, header):
    path = ratings_file(header)
    assert len(read_ratings(path)) == 0
    assert rank_file(path, tmp_path / "out.csv") == (0, 0)
    assert (tmp_path / "out.csv").read_text() == "movieId,avg_rating,num_ratings\n"


BAD_HEADERS = {
    b"": "is empty",
    b"\n\n": "is empty",
    b"1,2,3.5,100\n": "line 1: the header needs one column 'movieId', but is '1,2,3.5,100'",
    b"\nmovieId,stars\n": "line 2: the header needs one column 'rating'",
    b"movieId,rating,rating\n": "one column 'rating'",
    "movieId,rating\n".encode("utf-16"): "one column 'movieId'",
    bytes(range(256)): "one column 'movieId'",
    b"\0" * 200_000: "line 1",
}


@pytest.mark.parametrize(("content", "message"), BAD_HEADERS.items())
def test_a_file_without_the_needed_header_is_refused(ratings_file, content, message):
    path = ratings_file(content)
    with pytest.raises(BadRatings) as caught:
        read_ratings(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 200


BAD_ROWS = {
    "1,2,0,100": "rating '0' is not a number from 0.5 to 5.0",
    "1,2,5.5,100": "rating '5.5' is not",
    "1,2,-3,100": "rating '-3' is not",
    "1,2,,100": "rating '' is not",
    "1,2,nan,100": "rating 'nan' is not",
    "1,2,NaN,100": "rating 'NaN' is not",
    "1,2,inf,100": "rating 'inf' is not",
    "1,2,1e999,100": "rating '1e999' is not",
    "1,2,four,100": "rating 'four' is not",
    "1,2,True,100": "rating 'True' is not",
    "1,2,4_0,100": "rating '4_0' is not",
    "1,2,0x4,100": "rating '0x4' is not",
    '1,2,"4,5",100': "rating '4,5' is not",
    "1,2,٤,100": "rating '\\u0664' is not",
    "1,2.5,4,100": "movieId '2.5' is not a whole number",
    "1,2.0,4,100": "movieId '2.0' is not",
    "1,,4,100": "movieId '' is not",
    "1,x,4,100": "movieId 'x' is not",
    "1,True,4,100": "movieId 'True' is not",
    "1,9223372036854775808,4,100": "movieId '9223372036854775808' is not",
    "1,99999999999999999999999,4,100": "is not a whole number",
    "me,2,4,100": "userId 'me' is not",
    "1,2,4,today": "timestamp 'today' is not",
    "1,2,4,": "timestamp '' is not",
    "1,2,4": "3 fields, but the header has 4",
    "1,2": "2 fields",
    "2": "1 fields",
    "1,2,4,100,": "5 fields",
    "1,2,4,100,7": "5 fields",
    "1,2,4,100,7,8": "6 fields",
    "1,2,4,100\0": "timestamp '100\\x00' is not",
    "1,2,\x1b[31m,100": "rating '\\x1b[31m' is not",
    '1,2,"4,100': "3 fields",
    HEADER.strip(): "userId 'userId' is not",
}


@pytest.mark.parametrize(("row", "message"), BAD_ROWS.items())
@pytest.mark.parametrize("good_rows", [0, 1, 40])
def test_a_bad_row_is_named_by_file_line_and_value(ratings_file, row, message, good_rows):
    path = ratings_file(HEADER + "1,2,3.5,100\n" * good_rows + row + "\n")
    with pytest.raises(BadRatings) as caught:
        read_ratings(path)
    assert str(caught.value).startswith(f"{path}: line {good_rows + 2}: ")
    assert message in str(caught.value)


def test_bytes_that_are_not_utf_8_are_named(ratings_file):
    path = ratings_file(b"movieId,title,rating\n1,ok,4\n2,\xc9t\xe9,4\n")
    with pytest.raises(BadRatings, match=r"line 3: title '.*' is not UTF-8"):
        read_ratings(path)


good_rows = st.sampled_from(
    ["1,2,3.5,100", "1,-2,5,0", "1, 2 , 0.5 ,1", "+1,+2,+4,1", '1,"2",1e0,1', "1,2,.5,1", "1,2,4.,1"]
)
bad_rows = st.sampled_from([row for row in BAD_ROWS if row.count('"') != 1])


@given(rows=st.lists(good_rows | bad_rows, max_size=12), chunk_rows=st.integers(1, 5))
def test_a_file_is_refused_for_its_first_bad_row_or_not_at_all(tmp_path_factory, rows, chunk_rows):
    path = tmp_path_factory.mktemp("bad") / "ratings.csv"
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    first_bad = next((line for line, row in enumerate(rows, 2) if row in BAD_ROWS), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratings_csv, "CHUNK_ROWS", chunk_rows)
        if first_bad is None:
            assert len(read_ratings(path)) == len(rows)
        else:
            with pytest.raises(BadRatings, match=f": line {first_bad}: "):
                read_ratings(path)


@given(content=st.binary(max_size=300) | st.binary(max_size=200).map(lambda junk: HEADER.encode() + junk))
def test_garbage_is_refused_in_one_line_or_read_as_ratings(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("junk") / "ratings.csv"
    path.write_bytes(content)
    try:
        outcome = read_ratings(path)["rating"].between(0.5, 5.0).all()
    except BadRatings as error:
        outcome = len(str(error).splitlines()) == 1
    assert outcome


def test_a_bad_row_leaves_the_former_ranking_as_it_was(ratings_file, tmp_path):
    output = tmp_path / "out.csv"
    output.write_text("former")
    with pytest.raises(BadRatings):
        rank_file(ratings_file(HEADER + "1,2,9,100\n"), output)
    assert output.read_text() == "former"


def test_a_missing_file_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_ratings(tmp_path / "none.csv")
