"""What is known about an image, as facts for gates, pages and exports: open findings and risk."""
