"""Roll dice and share the roll: one file, no database, settings from the environment."""

import os
import random

from flask import Flask, abort, render_template_string, request, url_for

SIDES = int(os.environ.get("DICE_SIDES", "6"))
MOST = int(os.environ.get("DICE_MOST", "10"))
PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Dice</title>
<h1>{{ dice | join(" + ") }} = {{ dice | sum }}</h1>
<p><a href="{{ url_for('roll', count=dice | length) }}">Roll again</a>
or send this roll to a friend: <a href="{{ link }}">{{ link }}</a></p>
<form action="{{ url_for('roll') }}">
<label>Dice <input name="count" type="number" min="1" max="{{ most }}" value="{{ dice | length }}">
</label> of {{ sides }} sides <button>Roll</button>
</form>
</html>
"""

app = Flask(__name__)


@app.get("/")
def roll():
    """Roll dice, or show the roll of a shared link."""
    count = request.args.get("count", 2, type=int)
    seed = request.args.get("roll") or f"{random.getrandbits(48):x}"
    if not 1 <= count <= MOST:
        abort(400, f"The number of dice must be 1 to {MOST}.")
    dice = random.Random(seed).choices(range(1, SIDES + 1), k=count)
    link = url_for("roll", count=count, roll=seed, _external=True)
    return render_template_string(PAGE, dice=dice, link=link, most=MOST, sides=SIDES)
