"""Incidents: the periods in which a metric is not healthy, and what people do about them."""
