"""The JSON API and the registry webhook: one file per area, and what all areas share."""
