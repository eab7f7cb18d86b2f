"""`manage.py bench`: measurements at any number of images, in a database of their own."""
