"""Redis: the event stream and the queues of wake-ups."""
