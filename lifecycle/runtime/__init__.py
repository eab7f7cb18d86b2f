"""What runs where: reports of clusters and hosts, events from them, and drift from what was promoted."""
