"""The page of what runs where."""
