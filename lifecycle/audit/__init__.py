"""The audit trail: written in the transaction of each action, filtered, exported."""
