"""The only way into an environment: requests, votes, requirements, and the copy by digest."""
