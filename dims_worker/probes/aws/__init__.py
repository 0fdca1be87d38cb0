"""Measure an AWS account: RDS, CloudWatch, Cost Explorer."""
