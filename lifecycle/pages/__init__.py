"""The web pages: views, forms and the queries that only pages need, one folder per area."""
