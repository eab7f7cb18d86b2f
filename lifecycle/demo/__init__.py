"""The demonstration: real images, from their first push to a patch of their base, by the roles that would do it.

`cast.py` says who takes part, `images.py` what is built; `story.py` tells it, act by act, over the API and with
registry clients that people use (`building.py`); `report.py` writes down what came of it. Nothing else imports this.
"""
