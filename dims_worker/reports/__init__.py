"""Reports: the inventory as HTML, Markdown, Excel, JSON, CSV and Prometheus metrics."""
