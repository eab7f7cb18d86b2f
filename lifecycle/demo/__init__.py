"""The demonstration: real images, from the first push to a patched base, each step by the right role.

`cast.py` says who takes part, `images.py` what is built; `story.py` tells it, act by act, over the API and with
registry clients that people use (`building.py`); `report.py` writes down what came of it. Nothing else imports this.
"""
