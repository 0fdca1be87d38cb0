"""The workflow `aws-inventory`: what AWS stores and what it costs."""
