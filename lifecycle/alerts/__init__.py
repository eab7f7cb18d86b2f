"""Alerts: what changed for a team, told once, with what people did about it."""
