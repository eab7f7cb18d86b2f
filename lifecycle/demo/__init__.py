"""The demonstration: real images, from the first push to a patched base, each step by the right role.

`cast.py` defines the accounts, and `images.py` the images. `story.py` runs the steps, act by act, with the API and with
common registry clients (`building.py`). `report.py` creates the results. No other package imports this one.
"""
