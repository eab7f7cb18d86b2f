"""Pages of VEX: decisions about findings, and documents."""
