"""The workflow `aws-inventory`: what AWS holds and costs."""
