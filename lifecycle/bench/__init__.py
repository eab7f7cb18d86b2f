"""`manage.py bench`: measurements with any number of images, in a database of their own."""
