"""The baseline's API: one pandas frame, filtered as a whole for each page.

Naive on purpose: it is what we measure against.

python book_server.py RATINGS_CSV PORT_FILE
"""

import math
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from flask import Flask, Response, jsonify, request
from werkzeug.serving import make_server


def create_app(ratings: pd.DataFrame) -> Flask:
    """Serve /ratings with start_date, end_date (UTC days), offset and limit."""
    app = Flask(__name__)

    def epoch(name: str, default: float) -> float:
        day = request.args.get(name)
        return datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() if day else default

    @app.get("/ratings")
    def page() -> Response:
        when = ratings["timestamp"]
        chosen = ratings[(when >= epoch("start_date", -math.inf)) & (when < epoch("end_date", math.inf))]
        offset = request.args.get("offset", 0, type=int)
        limit = request.args.get("limit", 100, type=int)
        result = chosen.iloc[offset : offset + limit].to_dict(orient="records")
        return jsonify(result=result, offset=offset, limit=limit, total=len(chosen))

    return app


def main(ratings_csv: str, port_file: str) -> None:
    """Serve on a free loopback port, and write it to a file, until a signal comes."""
    app = create_app(pd.read_csv(ratings_csv))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    # written beside and moved: whoever waits for the file must not find it empty
    beside = Path(port_file + ".part")
    beside.write_text(str(server.server_port))
    beside.rename(port_file)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
