"""The audit trail: written in the transaction of what it tells, read by filters, exported."""
